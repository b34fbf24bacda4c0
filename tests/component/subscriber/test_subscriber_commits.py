"""Commits follow settled offsets, polls request partitions with space, and a stop drains, commits and leaves."""

import asyncio

import pytest

from consumers.runtime import member
from consumers.runtime.member import WatchLimits
from consumers.runtime.start_positions import Adoption
from tests.component.subscriber.group import A, B, Group, turns
from tests.fake_transport import FakeTransport
from tests.logs import capture_logs
from tests.waiting import HANG_S, until


async def test_nothing_is_committed_for_a_partition_after_it_was_revoked(group: Group) -> None:
    """The broker would accept it, and rewind the new owner."""
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 1, B: 0})
        await group.transport.rebalance([B])
        group.processor.next_offsets[A] = 7
        group.transport._assigned |= {A}
        commits = len(group.kafka.commits)
        group.kafka.add(B, "b")

        await until(lambda: len(group.kafka.commits) > commits)

    assert group.kafka.offsets[A] == 1
    del group.processor.next_offsets[A]


async def test_a_commit_that_waits_for_another_looks_at_the_marks_when_its_turn_comes(group: Group) -> None:
    """The periodic one is out when the partition is revoked: the last must not send what was true before the wait."""
    group.gives = [A]
    group.limits = WatchLimits(look_s=HANG_S)
    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 0})
        group.transport.answer_s = HANG_S
        group.kafka.go_away()
        group.processor.next_offsets[A] = 1
        await until(lambda: group.kafka.waiting == 1)
        revoking = asyncio.create_task(group.transport.rebalance([]))
        await until(lambda: len(group.processor.drained) == 2)
        group.processor.next_offsets[A] = 2
        group.kafka.come_back()
        await revoking

        assert group.kafka.commits == [{A: 0}, {A: 1}, {A: 2}]


async def test_offsets_follow_a_database_that_was_restored(group: Group) -> None:
    """It is behind Kafka, and says what is applied."""
    group.kafka.add(A, "a", "b", "c")
    group.kafka.offsets = {A: 2, B: 0}
    group.processor.stored[A] = Adoption(1, "a")
    group.processor.holding = True
    async with group.running():
        await until(lambda: group.processor.ids(A) == ["b", "c"])
        await until(lambda: group.kafka.offsets[A] == 1)
        group.processor.settle(A)

        await until(lambda: group.kafka.offsets[A] == 3)


async def test_a_failed_commit_is_made_good_by_the_next_and_told_once(group: Group) -> None:
    group.kafka.refuses = ["no_answer"] * 5
    group.kafka.add(A, "a")
    with capture_logs() as logs:
        async with group.running():
            await until(lambda: group.kafka.offsets == {A: 1, B: 0})

    assert [each["code"] for each in logs if each["event"] == "worker.commit_failed"] == ["no_answer"]


async def test_a_commit_that_is_refused_at_a_revoke_means_that_the_partitions_were_lost(group: Group) -> None:
    group.processor.holding = True
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.processor.ids(A) == ["a"] and group.kafka.offsets == {A: 0, B: 0})
        group.kafka.refuses = ["not_member"]

        await group.transport.rebalance([B])

        assert group.sample("consumer_rebalances_total", kind="lost") == 1


async def test_room_is_noticed_long_before_a_poll_without_records_ends(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.full = {A}
        group.kafka.add(A, "a")
        await turns(group)
        monkeypatch.setattr(member, "POLL_S", 2 * HANG_S)
        await turns(group)
        group.processor.full = set()

        await until(lambda: group.processor.ids(A) == ["a"])
        monkeypatch.setattr(member, "POLL_S", 0.02)
        group.kafka.add(B, "b")  # which ends the poll that is out


async def test_a_halted_partition_is_paused_polling_goes_on_and_later_it_is_resumed(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.stopped_for_long = {A, B}
        await until(lambda: group.transport.paused == {A, B})
        await turns(group)
        assert (running.ready(), running.degraded()) == ("ok", "degraded")
        assert group.sample("consumer_paused_partitions") == 2
        group.kafka.add(A, "a")
        group.processor.stopped_for_long = set()

        await until(lambda: group.processor.ids(A) == ["a"])
        assert group.transport.paused == set()


async def test_a_stop_drains_commits_and_leaves(group: Group) -> None:
    group.processor.holding = True
    group.kafka.add(A, "a")
    async with group.running() as running:
        await until(lambda: group.processor.ids(A) == ["a"])

    assert running.ready() == "stopping"
    assert group.processor.drained[-1] == {A, B}
    assert group.kafka.offsets[A] == 1
    assert group.transport.stopped
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_is_bounded_when_a_drain_hangs(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "DRAIN_MARGIN_S", 0.01)
    group.drain_s = 0.05
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.draining.clear()

    assert group.transport.stopped


async def test_a_stop_lets_a_rebalance_end_its_drain(group: Group) -> None:
    """The client would cancel it after a second, and not leave the group, which waits until a session has run out."""
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.draining.clear()
        rebalance = asyncio.create_task(group.transport.rebalance([]))
        await until(lambda: group.processor.drained[-1] == {A, B})
        group.stop.set()
        assert group.task is not None
        await asyncio.wait({group.task}, timeout=0.5)
        stopped = group.transport.stopped
        group.processor.draining.set()
        await rebalance

    assert (stopped, group.transport.stopped) == (False, True)


async def test_a_rebalance_amid_a_stop_waits_for_its_drain(group: Group) -> None:
    """Until then the partitions are ours: another member would handle what is still in flight."""
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.draining.clear()
        group.stop.set()
        await until(lambda: group.processor.drained[-1] == {A, B})
        rebalance = asyncio.create_task(group.transport.rebalance([]))
        await asyncio.wait({rebalance}, timeout=0.1)
        given_away = rebalance.done()
        group.processor.draining.set()
        await rebalance

    assert not given_away


async def test_a_stop_while_joining_ends_at_once(group: Group) -> None:
    class Slow(FakeTransport):
        async def start(self, rebalances: object) -> None:
            del rebalances
            await asyncio.Event().wait()

    group.open = lambda: group.transports.append(Slow(group.kafka)) or group.transport  # type: ignore[func-returns-value,method-assign]
    async with group.running():
        await until(lambda: len(group.transports) == 1)

    assert group.transport.stopped
