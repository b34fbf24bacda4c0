"""A partition is claimed, then sought, then read; what belongs to an earlier generation is dropped."""

import asyncio

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from tests.component.subscriber.group import A, B, Group, turns
from tests.waiting import until


async def test_a_claim_is_retried_while_the_database_is_away_and_the_partition_stays_paused(group: Group) -> None:
    group.kafka.add(A, "a")
    group.processor.away = True
    async with group.running() as running:
        await until(lambda: len(group.processor.adoptions) > 5)
        assert group.transport.paused == {A, B}
        assert set().union(*group.transport.polled) == set()
        assert (running.live(), running.ready(), running.degraded()) == ("ok", "ok", "degraded")
        group.processor.away = False

        await until(lambda: group.processor.ids(A) == ["a"])
        await until(lambda: running.degraded() == "ok")


async def test_a_claim_that_fails_is_not_repeated_at_once(group: Group) -> None:
    delays: list[float] = []

    async def sleep(delay_s: float) -> None:
        delays.append(delay_s)
        group.processor.away = len(delays) < 8

    group.sleep = sleep
    group.gives = [A]
    group.processor.away = True

    async with group.running():
        await until(lambda: A in group.processor.next_offsets)

    assert all(0.005 * 2**n <= delay <= 0.01 * 2**n for n, delay in enumerate(delays))


async def test_a_batch_whose_generation_moved_while_it_was_fetched_is_dropped(group: Group) -> None:
    group.gives = [A]
    async with group.running():
        await until(lambda: A in group.processor.next_offsets)
        transport = group.transport
        taken = asyncio.Event()
        taking = transport._taken

        def take_and_lose(asked: frozenset[TopicPartition]) -> dict[TopicPartition, list[ConsumedRecord]]:
            found = taking(asked)
            if found and not taken.is_set():
                taken.set()
                group.processor.claiming.clear()
                assert transport._rebalances is not None
                transport._rebalances.assigned(frozenset([A]))
            return found

        transport._taken = take_and_lose  # type: ignore[method-assign]
        group.kafka.add(A, "a")
        await taken.wait()
        await turns(group)
        assert group.processor.ids(A) == []
        group.processor.claiming.set()

        await until(lambda: group.processor.ids(A) == ["a"])


async def test_a_claim_of_an_earlier_generation_does_not_count(group: Group) -> None:
    group.processor.claiming.clear()
    async with group.running():
        await until(lambda: len(group.processor.adoptions) == 2)
        await group.transport.rebalance([A])
        await until(lambda: len(group.processor.adoptions) == 3)
        group.processor.claiming.set()

        await until(lambda: A in group.processor.next_offsets)
        await turns(group)
        assert B not in group.processor.next_offsets


async def test_a_partition_whose_fence_failed_is_claimed_again_under_a_new_generation(group: Group) -> None:
    group.gives = [A]
    async with group.running():
        await until(lambda: A in group.processor.next_offsets)
        group.processor.overtaken.add(A)
        await until(lambda: not group.processor.overtaken)
        group.kafka.add(A, "a")
        await until(lambda: group.processor.ids(A) == ["a"])

    assert (group.processor.adoptions, group.processor.forgotten[0]) == ([A, A], A)


async def test_what_is_taken_without_a_word_is_forgotten_when_the_next_assignment_comes(group: Group) -> None:
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        assert group.transport._rebalances is not None
        group.transport._assigned = frozenset([B])
        group.transport._rebalances.assigned(frozenset([B]))

        assert set(group.processor.forgotten) == {A, B}
        await until(lambda: set(group.processor.next_offsets) == {B})
