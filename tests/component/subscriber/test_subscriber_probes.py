"""Probes and lag of a subscriber."""

import asyncio
from collections.abc import Collection

from bridge.kafka.consumed_record import TopicPartition
from consumers.runtime.member import WatchLimits
from tests.component.subscriber.group import A, B, Group
from tests.waiting import until


async def test_it_is_ready_without_any_partition(group: Group) -> None:
    group.gives = []
    async with group.running() as running:
        await until(lambda: running.ready() == "ok")

        assert (running.live(), running.degraded()) == ("ok", "ok")
        assert group.sample("consumer_assigned_partitions") == 0


async def test_a_poll_that_does_not_return_is_not_alive(group: Group) -> None:
    group.limits = WatchLimits(poll_s=0.05)
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        going_on = asyncio.Event()
        polling = group.transport.poll

        async def hang(tps: Collection[TopicPartition], *, timeout_s: float) -> object:
            await going_on.wait()
            return await polling(tps, timeout_s=timeout_s)

        group.transport.poll = hang  # type: ignore[method-assign,assignment]
        await until(lambda: running.live() == "poll_late")
        assert (group.sample("poll_age_seconds") or 0) > 0.05
        going_on.set()
        await until(lambda: running.live() == "ok")


async def test_what_an_open_transaction_hides_is_lag(group: Group) -> None:
    """Another producer has begun it and does not end it: the log seems to end there."""
    group.kafka.add(A, "a")
    group.kafka.unstable[A] = 3

    async with group.running():
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 3)
        await until(lambda: (group.sample("consumer_lag_seconds", topic="t", partition="0") or 0) > 0)
        del group.kafka.unstable[A]
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 0)


async def test_lag_is_reported_per_partition_and_taken_away_with_it(group: Group) -> None:
    group.processor.holding = True
    group.kafka.add(A, "a", "b")
    async with group.running():
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 2)
        assert (group.sample("consumer_lag_seconds", topic="t", partition="0") or 0) > 1_000
        assert group.sample("consumer_settled_offset", topic="t", partition="0") == 0
        group.processor.settle(A)
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 0)
        assert group.sample("consumer_lag_seconds", topic="t", partition="0") == 0
        assert group.sample("consumer_settled_offset", topic="t", partition="0") == 2
        await group.transport.rebalance([B])

        for name in ("consumer_lag_records", "consumer_lag_seconds", "consumer_settled_offset"):
            assert group.sample(name, topic="t", partition="0") is None
        await until(lambda: group.sample("consumer_assigned_partitions") == 1)
        assert (group.sample("commit_seconds_count") or 0) > 0
