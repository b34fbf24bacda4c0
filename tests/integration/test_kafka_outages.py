"""aiokafka hangs when brokers vanish; the supervised producer does not."""

import asyncio
import contextlib
from typing import cast

import pytest

from bridge.errors import NotDurableError, RecordRefusedError
from bridge.kafka.producer import KafkaProducer, Patience
from bridge.kafka.record import Record
from tests.cluster import Cluster, Topics
from tests.kafka import a_producer, configure_topic, paused, read_all, ready_producer, reset_connections, running, until

pytestmark = pytest.mark.kafka

# So that a test sees in a second what production sees in many.
HASTY = Patience(tick_s=0.05, stalled_s=0.5, silent_s=60.0, retry_max_s=0.5)
REPLACING = Patience(tick_s=0.05, stalled_s=0.5, silent_s=1.0, retry_max_s=0.5)


@pytest.fixture
def topic(topics: Topics) -> str:
    return topics.fresh()


def a_record(topic: str, value: bytes = b"v", partition: int = 0) -> Record:
    return Record(topic, partition, b"rx_1", value, [], 1_772_366_400_000)


async def code_of_write(producer: KafkaProducer, topic: str) -> str:
    with pytest.raises(NotDurableError) as caught:
        await producer.write(topic, 0, [a_record(topic)])
    return caught.value.code


async def until_working(producer: KafkaProducer, topic: str) -> None:
    """Wait until a first record is there: a topic that is just made is not known everywhere yet."""
    await until(lambda: producer.ready and not producer.wrong_counts)
    await producer.write(topic, 0, [a_record(topic, b"first")])
    # On a machine that is busy this very write may have been silent for long enough to have the producer replaced.
    await until(lambda: producer.ready)


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def until_gone() -> None:
    """Wait until no task but the caller's is left: a replaced producer must not go on sending."""
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_producer_without_answers_is_replaced_and_its_writes_are_unknown(cluster: Cluster, topic: str) -> None:
    async with running(a_producer(cluster.bootstrap_servers, topic, patience=REPLACING)) as producer:
        await until_working(producer, topic)
        async with paused(cluster):
            assert await code_of_write(producer, topic) == "outcome_unknown"

        await until(lambda: producer.ready)
        assert await producer.write(topic, 0, [a_record(topic, b"after")]) == 1
    assert (await read_all(cluster.bootstrap_servers, topic))[-1].value == b"after"
    await until_gone()


async def test_a_stop_with_a_frozen_broker_and_a_write_in_flight_is_bounded(cluster: Cluster, topic: str) -> None:
    """Aiokafka's own `stop()` was seen to hang for more than 20 s."""
    async with running(a_producer(cluster.bootstrap_servers, topic, patience=HASTY)) as producer:
        await until_working(producer, topic)
        async with paused(cluster):
            writing = asyncio.create_task(code_of_write(producer, topic))
            await until(lambda: not producer.ready)
            async with asyncio.timeout(10):
                await producer.close(3)

            assert await writing == "outcome_unknown"
            assert producer.state == "closed"
    await until_gone()


async def test_a_sequence_error_ends_the_producer_and_a_new_one_takes_over(cluster: Cluster, topic: str) -> None:
    """Aiokafka's producer stays dead after one."""
    async with running(a_producer(cluster.bootstrap_servers, topic, patience=HASTY)) as producer:
        await until_working(producer, topic)
        assert producer._generation is not None
        producer._generation._client._txn_manager._sequence_numbers.clear()
        producer._generation._client._txn_manager._sequence_numbers.default_factory = lambda: 7

        assert await code_of_write(producer, topic) == "outcome_unknown"

        await until(lambda: producer.ready and producer._generations == 2)
        await producer.write(topic, 0, [a_record(topic, b"b")])
    assert [record.value for record in await read_all(cluster.bootstrap_servers, topic)] == [b"first", b"b"]


async def test_an_address_that_takes_connections_and_says_nothing_does_not_stand_in_the_way(
    cluster: Cluster, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.kafka.producer.REQUEST_TIMEOUT_MS", 500)
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    addresses = f"127.0.0.1:1,127.0.0.1:{port},{cluster.bootstrap_servers}"

    async with silent, running(a_producer(addresses, topic, patience=HASTY)) as producer:
        await until_working(producer, topic)


async def test_a_record_that_a_broker_looks_into_and_refuses_is_told_and_the_next_is_written(
    cluster: Cluster, topic: str
) -> None:
    """As where brokers check ids of schemas: they answer as a compacted topic does to a record without a key."""
    await asyncio.to_thread(configure_topic, cluster.bootstrap_servers, topic, "cleanup.policy", "compact")
    async with ready_producer(cluster.bootstrap_servers, topic) as producer:
        await until_working(producer, topic)
        with pytest.raises(RecordRefusedError, match=r"^record_refused$"):
            await producer.write(topic, 0, [a_record(topic)._replace(key=cast("bytes", None))])
        await producer.write(topic, 0, [a_record(topic, b"next")])

    assert [record.value for record in await read_all(cluster.bootstrap_servers, topic)] == [b"first", b"next"]


async def test_a_producer_whose_metadata_nobody_renews_any_more_is_replaced(cluster: Cluster, topic: str) -> None:
    """Connections that were reset have ended the task that did; a leader that moves would never be found."""
    async with ready_producer(cluster.bootstrap_servers, topic) as producer:
        await until_working(producer, topic)
        assert producer._generation is not None
        reset_connections(producer._generation._client.client)
        producer._generation.refresh_metadata()

        await until(lambda: producer.ready and producer._generations == 2)
        await producer.write(topic, 0, [a_record(topic, b"second")])

    assert [record.value for record in await read_all(cluster.bootstrap_servers, topic)] == [b"first", b"second"]
