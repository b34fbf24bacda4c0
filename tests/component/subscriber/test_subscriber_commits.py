"""Commits follow what is settled, and never touch what is not ours."""

from __future__ import annotations

import asyncio

from consumers.runtime.subscriber import Adoption, WatchLimits
from tests.component.subscriber.group import HANG_S, A, B, Group, until
from tests.logs import capture_logs


async def test_a_revoked_partition_is_drained_committed_and_forgotten_while_it_is_still_ours(group: Group) -> None:
    group.processor.holding = True
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.processor.ids(A) == ["a"])

        await group.transport.rebalance([B])

        assert group.processor.drained == [frozenset(), frozenset([A, B])]
        assert group.kafka.offsets[A] == 1
        assert A not in group.processor.next_offsets
        assert group.sample("consumer_rebalances_total", kind="revoked") == 1


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
