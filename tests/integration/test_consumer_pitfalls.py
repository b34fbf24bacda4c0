"""Differences of the project's group member from aiokafka's surprising defaults."""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from aiokafka import TopicPartition as ClientPartition  # noqa: TID251 - the bare library

from bridge.dev.kafka import create_topics
from bridge.kafka.consumed_record import TopicPartition
from consumers.runtime.transport import TransportError
from tests.cluster import Cluster, Topics
from tests.groups import a_member
from tests.kafka import HANG_S, paused, until

pytestmark = pytest.mark.kafka

PARTITIONS = 2
# Nobody who is asked to stop may take longer: what a stop has for leaving the group, with some margin.
STOP_S = 10.0


@pytest.fixture
def topic(topics: Topics) -> str:
    return topics.fresh(partitions=PARTITIONS)


@pytest.fixture
def group(topics: Topics) -> str:
    return topics.unique_key("group")


def ours(topics: Topics, topic: str, group: str) -> AbstractAsyncContextManager[Any]:
    return a_member(topics.bootstrap_servers, group=group, topic=topic)


async def cancel(task: asyncio.Task[Any]) -> None:
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_poll_of_no_partition_is_enough_to_stay(topics: Topics, topic: str, group: str) -> None:
    async with ours(topics, topic, group) as transport:
        subscription = transport._consumer._subscription
        subscription._last_fetch_ended -= 1_000

        await transport.poll([], timeout_s=0)

        assert subscription.fetcher_idle_time < 1_000


async def test_a_topic_that_is_made_later_is_given_out_before_the_metadata_are_old(
    topics: Topics, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.runtime.transport.METADATA_MAX_AGE_MS", 3_600_000)
    topic = topics.unique_key("late")
    async with ours(topics, topic, group) as transport:
        await asyncio.to_thread(create_topics, topics.bootstrap_servers, {topic: PARTITIONS})

        async with asyncio.timeout(HANG_S):
            while len(transport.assigned()) < PARTITIONS:
                await transport.poll([], timeout_s=0.2)


async def test_a_commit_of_ours_that_had_to_wait_is_not_sent_after_a_rebalance(
    topics: Topics, topic: str, group: str
) -> None:
    both = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(ours(topics, topic, group))
        coordinator, going_on = old._consumer._coordinator, asyncio.Event()
        looking = coordinator.ensure_coordinator_known

        async def slow() -> None:
            if asyncio.current_task() is committing:
                await going_on.wait()
            await looking()

        coordinator.ensure_coordinator_known = slow
        old_answer = asyncio.get_running_loop().create_future()

        async def commit() -> None:
            try:
                await old.commit(dict.fromkeys(both, 1))
            except TransportError as exc:
                old_answer.set_result(exc.code)

        committing = asyncio.create_task(commit())
        new = await stack.enter_async_context(ours(topics, topic, group))
        await until(lambda: len(new.assigned()) == 1)
        (moved,) = new.assigned()
        await new.commit({moved: 77})
        going_on.set()
        await committing

        assert old_answer.result() in {"not_member", "no_answer"}
        assert await new._consumer.committed(ClientPartition(*moved)) == 77


async def stopped_in_time(transport: Any) -> None:
    async with asyncio.timeout(STOP_S):
        await transport.stop()
    assert not any(connection.connected() for connection in transport._consumer._client._conns.values())
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_stop_with_a_frozen_broker_ends_and_leaves_nothing(
    cluster: Cluster, topics: Topics, topic: str, group: str
) -> None:
    async with ours(topics, topic, group) as transport:
        transport.seek(TopicPartition(topic, 0), 0)
        async with paused(cluster):
            await transport.poll([TopicPartition(topic, 0)], timeout_s=0.5)

            await stopped_in_time(transport)


async def test_a_stop_whose_caller_gives_up_goes_on_to_its_end(
    cluster: Cluster, topics: Topics, topic: str, group: str
) -> None:
    async with ours(topics, topic, group) as transport, paused(cluster):
        await cancel(asyncio.create_task(transport.stop()))

        await stopped_in_time(transport)


async def test_questions_to_a_frozen_broker_end_with_no_answer(
    cluster: Cluster, topics: Topics, topic: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's commit has no end, nor has its question for offsets."""
    monkeypatch.setattr("consumers.runtime.transport.ANSWER_S", 0.5)
    first = TopicPartition(topic, 0)
    async with ours(topics, topic, group) as transport, paused(cluster):
        for ask in (transport.commit({first: 1}), transport.bounds([first])):
            with pytest.raises(TransportError, match=r"^no_answer$"):
                async with asyncio.timeout(HANG_S):
                    await ask


async def test_a_client_that_fetches_no_more_says_so(topics: Topics, topic: str, group: str) -> None:
    """The library returns nothing for ever."""
    async with ours(topics, topic, group) as transport:
        transport._consumer._fetcher._fetch_task.cancel()
        await asyncio.gather(transport._consumer._fetcher._fetch_task, return_exceptions=True)

        with pytest.raises(TransportError, match=r"^no_answer$"):
            await transport.poll([TopicPartition(topic, 0)], timeout_s=0)
