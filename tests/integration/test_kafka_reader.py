import asyncio

import pytest

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import ReadError, open_reader
from bridge.kafka.record import Record
from tests.cluster import Topics
from tests.kafka import ready_producer

pytestmark = pytest.mark.kafka

WHEN_MS = 1_772_366_400_000


def a_record(topic: str, value: bytes | None, partition: int = 0) -> Record:
    return Record(topic, partition, b"rx_1", value, [("ce_id", b"evt_1")], WHEN_MS)


async def test_until_end_gives_what_was_there_at_the_opening_with_all_its_parts(topics: Topics) -> None:
    topic = await asyncio.to_thread(topics.fresh, partitions=2)
    async with ready_producer(topics.bootstrap_servers, topic, partitions=2) as producer:
        await producer.write(topic, 0, [a_record(topic, b"a"), a_record(topic, None)])
        await producer.write(topic, 1, [a_record(topic, b"b", 1)])

        async with open_reader(KafkaConnection(topics.bootstrap_servers), [topic], from_beginning=True) as reader:
            await producer.write(topic, 0, [a_record(topic, b"later")])
            records = [record async for record in reader.until_end()]

    assert sorted((r.partition, r.offset, r.value) for r in records) == [(0, 0, b"a"), (0, 1, None), (1, 0, b"b")]
    assert {(r.topic, r.key, r.timestamp_ms, r.headers[0]) for r in records} == {
        (topic, b"rx_1", WHEN_MS, ("ce_id", b"evt_1"))
    }


async def test_what_was_there_comes_by_time_and_then_what_came_since(topics: Topics) -> None:
    topic = await asyncio.to_thread(topics.fresh, partitions=2)
    connection = KafkaConnection(topics.bootstrap_servers)
    async with ready_producer(topics.bootstrap_servers, topic, partitions=2) as producer:
        for partition, times in ((0, (1, 4)), (1, (2, 3))):
            records = [a_record(topic, b"%d" % at, partition)._replace(timestamp_ms=WHEN_MS + at) for at in times]
            await producer.write(topic, partition, records)

        async with open_reader(connection, [topic], from_beginning=True, since_ms=WHEN_MS + 2) as reader:
            await producer.write(topic, 0, [a_record(topic, b"later")])
            before = [record.value async for record in reader.by_time()]
            after = await anext(reader.forever())

    assert (before, after.value) == ([b"2", b"3", b"4"], b"later")


async def test_a_missing_topic_and_a_missing_broker_are_told(topics: Topics) -> None:
    with pytest.raises(ReadError, match="no such topic: absent"):
        async with open_reader(KafkaConnection(topics.bootstrap_servers), ["absent"], from_beginning=True):
            pass
    with pytest.raises(ReadError, match="no broker answers at"):
        async with open_reader(KafkaConnection("127.0.0.1:1"), ["absent"], from_beginning=True):
            pass
