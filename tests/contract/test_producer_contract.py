"""One suite for the fake producer and the real one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from bridge.errors import NotDurableError, RecordRefusedError
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.record import Record
from tests.fakes import FakeProducer
from tests.kafka import limit_messages, read_all, ready_producer
from tests.simulation.kafka import Connection, Kafka
from tests.simulation.world import World

PARTITIONS = 3
NARROW_BYTES = 21_000
MESSAGE_MAX = NARROW_BYTES - 1000  # a batch has a head, too


@dataclass
class Subject:
    """A producer, a topic that refuses large records, one that accepts them, and access to their records."""

    producer: KafkaProducer
    topic: str
    wide_topic: str
    fake: FakeProducer | None
    brokers: str | KafkaConnection = ""

    async def values(self, partition: int, *, topic: str = "") -> list[bytes | None]:
        if self.fake is not None:
            return [record.value for record in self.fake.log[topic or self.topic, partition]]
        records = await read_all(self.brokers, topic or self.topic)
        return [record.value for record in records if record.partition == partition]

    def record(self, value: bytes, *, partition: int = 0, topic: str = "") -> Record:
        return Record(topic or self.topic, partition, b"rx_1", value, [("ce_id", value[:8])], 1_772_366_400_000)


@pytest.fixture(params=["fake", "simulated", pytest.param("kafka", marks=pytest.mark.kafka)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "fake":
        fake = FakeProducer({"narrow": PARTITIONS, "wide": PARTITIONS}, batch_max=100)
        fake.too_large = lambda record: record.topic == "narrow" and len(record.value or b"") > MESSAGE_MAX
        yield Subject(fake, "narrow", "wide", fake)
        return
    if request.param == "simulated":
        kafka = Kafka(World(0, cast("Any", asyncio.get_running_loop())), {"narrow": PARTITIONS, "wide": PARTITIONS})
        kafka.topics["narrow"].max_bytes = NARROW_BYTES
        connection = Connection(kafka=kafka, host="test")
        async with ready_producer(connection, "narrow", "wide", partitions=PARTITIONS) as producer:
            yield Subject(producer, "narrow", "wide", None, connection)
        return
    topics = request.getfixturevalue("topics")
    topic, wide_topic = topics.fresh(partitions=PARTITIONS), topics.fresh(partitions=PARTITIONS)
    limit_messages(topics.bootstrap_servers, topic, NARROW_BYTES)
    async with ready_producer(topics.bootstrap_servers, topic, wide_topic, partitions=PARTITIONS) as producer:
        yield Subject(producer, topic, wide_topic, None, topics.bootstrap_servers)


async def write_all(producer: KafkaProducer, records: Sequence[Record]) -> int:
    batches = 0
    while records:
        records = records[await producer.write(records[0].topic, records[0].partition, records) :]
        batches += 1
    return batches


async def test_a_written_record_is_there_when_write_returns(subject: Subject) -> None:
    assert await subject.producer.write(subject.topic, 1, [subject.record(b"a", partition=1)]) == 1

    assert await subject.values(1) == [b"a"]


async def test_records_of_a_batch_keep_their_order(subject: Subject) -> None:
    records = [subject.record(str(n).encode()) for n in range(50)]

    await write_all(subject.producer, records)

    assert await subject.values(0) == [record.value for record in records]


async def test_what_does_not_fit_a_batch_is_left_to_the_next(subject: Subject) -> None:
    records = [subject.record(f"{n:04}".encode() * 2048, topic=subject.wide_topic) for n in range(120)]

    assert await write_all(subject.producer, records) > 1

    assert await subject.values(0, topic=subject.wide_topic) == [record.value for record in records]


async def test_a_record_that_is_too_large_is_refused_and_nothing_of_its_batch_is_written(subject: Subject) -> None:
    large = subject.record(b"x" * (MESSAGE_MAX + 5000))

    with pytest.raises(RecordRefusedError, match=r"^record_too_large$") as refused:
        await subject.producer.write(subject.topic, 0, [subject.record(b"a"), large])
    assert (refused.value.size or 0) > NARROW_BYTES

    assert await subject.values(0) == []


async def test_a_partition_takes_records_after_a_refusal(subject: Subject) -> None:
    """A refused batch leaves a hole in the sequence numbers unless they are given back."""
    await subject.producer.write(subject.topic, 0, [subject.record(b"a")])
    with pytest.raises(RecordRefusedError):
        await subject.producer.write(subject.topic, 0, [subject.record(b"x" * (MESSAGE_MAX + 5000))] * 2)

    await subject.producer.write(subject.topic, 0, [subject.record(b"b")])
    await subject.producer.write(subject.topic, 0, [subject.record(b"c")])

    assert await subject.values(0) == [b"a", b"b", b"c"]
    assert subject.producer.ready


async def test_a_missing_topic_is_told_and_not_created_and_so_is_a_partition_outside_one(subject: Subject) -> None:
    with pytest.raises(NotDurableError, match=r"^topic_missing$"):
        await subject.producer.write("no-such-topic", 0, [subject.record(b"a")])

    with pytest.raises(NotDurableError):
        await subject.producer.write("no-such-topic", 0, [subject.record(b"a")])
    with pytest.raises(NotDurableError, match=r"^topic_missing$"):
        await subject.producer.write(subject.topic, PARTITIONS, [subject.record(b"a")])


async def test_a_closed_producer_refuses_at_once(subject: Subject) -> None:
    await subject.producer.close(5)
    assert not subject.producer.ready

    with pytest.raises(NotDurableError, match=r"^kafka_unavailable$"):
        await subject.producer.write(subject.topic, 0, [subject.record(b"a")])


async def test_partitions_are_written_side_by_side(subject: Subject) -> None:
    await asyncio.gather(
        *[
            subject.producer.write(subject.topic, n, [subject.record(str(n).encode(), partition=n)])
            for n in range(PARTITIONS)
        ]
    )

    assert [await subject.values(n) for n in range(PARTITIONS)] == [[b"0"], [b"1"], [b"2"]]
