"""A failed client is closed and replaced; a short outage changes nothing."""

import asyncio
from collections.abc import Collection

import pytest

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.runtime.backoff import backoff_s
from consumers.runtime import member, subscriber
from consumers.runtime.member import WatchLimits
from tests.component.subscriber.group import A, B, Group, turns
from tests.fake_transport import FakeTransport
from tests.waiting import until


async def test_it_starts_without_kafka_and_joins_when_it_is_there(group: Group) -> None:
    group.kafka.go_away()
    async with group.running() as running:
        await until(lambda: len(group.transports) > 2)
        assert (running.live(), running.ready(), running.degraded()) == ("ok", "no_answer", "degraded")
        group.kafka.come_back()

        await until(lambda: running.ready() == "ok")


async def test_a_client_that_fails_is_left_in_order_and_another_takes_over(group: Group) -> None:
    group.processor.holding = True
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.processor.ids(A) == ["a"])
        group.transport.failure = "no_answer"
        await until(lambda: len(group.transports) == 2)

        assert group.transports[0].stopped
        assert frozenset([A, B]) in group.processor.drained
        assert (group.kafka.offsets[A], group.sample("consumer_rebalances_total", kind="revoked")) == (1, 1)
        group.kafka.add(A, "b")
        await until(lambda: group.processor.ids(A) == ["a", "b"])


async def test_clients_that_fail_soon_are_replaced_ever_more_slowly(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs the whole group a rebalance."""
    delays: list[float] = []

    def at_once(failures: int, **bounds: float) -> float:
        delays.append(backoff_s(failures, spread=max, **bounds))
        return 0.0

    monkeypatch.setattr(subscriber, "CLIENT_RETRY_MAX_S", 0.08)
    monkeypatch.setattr(subscriber, "backoff_s", at_once)
    async with group.running():
        while len(delays) < 5:
            await until(lambda: len(group.transports) > len(delays) and set(group.processor.next_offsets) == {A, B})
            group.transport.failure = "no_answer"
            await until(lambda: group.transport.failure is None)
            await until(lambda: group.transports[len(delays) - 1].stopped)

    assert delays[:5] == [0.02, 0.04, 0.08, 0.08, 0.08]


async def test_questions_that_nobody_answers_for_long_have_the_client_rebuilt(group: Group) -> None:
    """It never looks for brokers that all have new addresses."""
    group.limits = WatchLimits(look_s=0.01, silent_s=0.1)
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.kafka.go_away()
        await until(lambda: running.degraded() == "degraded")
        await until(lambda: len(group.transports) > 2)
        group.kafka.come_back()

        await until(lambda: running.ready() == "ok")


async def test_replaced_credentials_are_used_as_soon_as_nobody_answers(group: Group) -> None:
    """The client goes on with the old ones; with answers it is left alone, since it is logged in."""
    group.limits = WatchLimits(look_s=0.01)
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.transport.renewed = True
        await turns(group)
        assert len(group.transports) == 1
        group.kafka.go_away()
        await until(lambda: len(group.transports) > 1)
        group.kafka.come_back()

        await until(lambda: running.ready() == "ok")


async def test_a_partition_that_nobody_answers_for_has_no_client_rebuilt(group: Group) -> None:
    """It would have all the others given back and taken again, as long as it has no leader."""
    group.limits = WatchLimits(look_s=0.01, silent_s=0.1)
    group.kafka.leaderless.add(B)
    group.processor.holding = True
    now = asyncio.get_running_loop().time
    async with group.running():
        group.kafka.add(A, "a", "b")
        began = now()
        await until(lambda: now() - began > 2 * group.limits.silent_s)
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 2)

        assert len(group.transports) == 1


async def test_a_partition_that_nobody_answers_for_has_the_client_rebuilt_in_the_end(group: Group) -> None:
    """It may be the path to its leader."""
    group.limits = WatchLimits(look_s=0.01, partly_silent_s=0.1)
    group.kafka.leaderless.add(B)
    async with group.running() as running:
        await until(lambda: len(group.transports) > 1)
        group.kafka.leaderless.clear()

        await until(lambda: running.degraded() == "ok")


async def test_a_partition_without_an_offset_that_came_back_during_a_poll_fails_no_client(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll asked on behalf of the tenure before; in this one nothing is sought yet."""
    monkeypatch.setattr(member, "POLL_S", 0.2)
    group.kafka.refuses += ["not_member"] * 1_000
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.claiming.clear()
        polls = len(group.transport.polled)
        await until(lambda: len(group.transport.polled) > polls)
        await group.transport.rebalance([A, B])
        group.kafka.add(A, "a")
        await turns(group)
        group.processor.claiming.set()

        await until(lambda: group.processor.ids(A) == ["a"])
        assert len(group.transports) == 1


async def test_an_outage_that_is_short_changes_nothing(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.kafka.go_away()
        await until(lambda: running.degraded() == "degraded")
        assert (running.live(), running.ready()) == ("ok", "ok")
        group.kafka.come_back()
        group.kafka.add(A, "a")

        await until(lambda: group.processor.ids(A) == ["a"] and running.degraded() == "ok")
        assert len(group.transports) == 1


async def test_a_join_that_never_ends_has_the_client_rebuilt(group: Group) -> None:
    group.limits = WatchLimits(join_s=0.05)
    group.open = lambda: group.transports.append(NeverGiven(group.kafka)) or group.transport  # type: ignore[func-returns-value,method-assign]

    async with group.running():
        await until(lambda: len(group.transports) > 2)


class NeverGiven(FakeTransport):
    async def rebalance(self, tps: Collection[TopicPartition]) -> None:  # type: ignore[override]
        """Leave the member waiting."""


async def test_a_cluster_that_refuses_is_asked_again_and_said(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        taking = group.transport._taken

        def refuse(asked: frozenset[TopicPartition]) -> dict[TopicPartition, list[ConsumedRecord]]:
            group.transport.failure = "refused"
            return taking(asked)

        group.transport._taken = refuse  # type: ignore[method-assign]
        await until(lambda: running.ready() == "refused")
        assert running.live() == "ok"
        group.transport._taken = taking  # type: ignore[method-assign]

        await until(lambda: running.ready() == "ok")
        assert len(group.transports) == 1


async def test_what_fails_in_the_listener_ends_the_process(group: Group) -> None:
    """The client swallows it."""

    async def fail(tps: Collection[TopicPartition], *, timeout_s: float) -> None:
        del timeout_s
        if tps:
            raise LookupError

    group.processor.drain = fail  # type: ignore[method-assign]
    ending = asyncio.create_task(group.run_to_its_end())
    await until(lambda: set(group.processor.next_offsets) == {A, B})

    await group.transport.rebalance([A])

    with pytest.raises(LookupError):
        await ending
