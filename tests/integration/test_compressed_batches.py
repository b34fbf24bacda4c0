import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager

import pytest
from confluent_kafka import Producer

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import TopicPartition
from bridge.kafka.reader import open_reader, open_tail
from consumers.runtime.transport import GroupTransport, TransportError
from tests.cluster import Cluster, EmbeddedCluster, Topics
from tests.groups import a_member
from tests.kafka import HANG_S, configure_topic, read_all

pytestmark = pytest.mark.kafka

CODECS = ("gzip", "snappy", "lz4", "zstd")
VALUES = [f"event {number} ".encode() * 400 for number in range(3)]


def produce(servers: str, topic: str, values: list[bytes], *, partition: int = 0, codec: str = "none") -> None:
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 200, "log_level": 0, "compression.type": codec})
    for number, value in enumerate(values):
        producer.produce(topic, value, b"rx_1", partition=partition, headers=[("ce_id", f"evt_{number}")])
    assert producer.flush(HANG_S) == 0


def member(topics: Topics, topic: str) -> AbstractAsyncContextManager[GroupTransport]:
    return a_member(topics.bootstrap_servers, group=topics.unique_key("group"), topic=topic)


async def member_reads(topics: Topics, topic: str, count: int) -> list[bytes | None]:
    tps = [TopicPartition(topic, number) for number in range(len(CODECS))]
    values: list[bytes | None] = []
    async with member(topics, topic) as transport, asyncio.timeout(HANG_S):
        for tp in tps:
            transport.seek(tp, 0)
        while len(values) < count:
            for records in (await transport.poll(tps, timeout_s=0.2)).values():
                values += [record.value for record in records]
    return values


@pytest.mark.parametrize("packed_by", ["librdkafka", "broker"])
async def test_a_member_and_a_reader_read_what_others_compress(topics: Topics, packed_by: str) -> None:
    """The broker unpacks and packs a batch by the code of Kafka's own producer."""
    topic = await asyncio.to_thread(topics.fresh, partitions=len(CODECS))
    for number, codec in enumerate(CODECS):
        if packed_by == "broker":
            await asyncio.to_thread(configure_topic, topics.bootstrap_servers, topic, "compression.type", codec)
        own = "none" if packed_by == "broker" else codec
        await asyncio.to_thread(produce, topics.bootstrap_servers, topic, VALUES, partition=number, codec=own)
    written = Counter(VALUES * len(CODECS))

    assert Counter(await member_reads(topics, topic, written.total())) == written
    assert Counter(record.value for record in await read_all(topics.bootstrap_servers, topic)) == written


@pytest.fixture
def spoiled(cluster: Cluster, topics: Topics) -> str:
    """A topic of two partitions; of the first, the batch with offsets 2 to 4 is corrupt."""
    if not isinstance(cluster, EmbeddedCluster):
        pytest.skip("the files of the broker lie in a container")
    topic = topics.fresh(partitions=2)
    for values in ([b"0", b"1"], VALUES):
        produce(topics.bootstrap_servers, topic, values, codec="lz4")
    cluster.spoil_last_batch(topic, 0)
    produce(topics.bootstrap_servers, topic, [b"5", b"6"], codec="lz4")
    produce(topics.bootstrap_servers, topic, [b"other"], partition=1)
    return topic


async def test_a_member_reads_up_to_a_corrupt_batch_and_the_other_partitions(spoiled: str, topics: Topics) -> None:
    """The client drops what it has unpacked before such a batch, also of the other partitions."""
    first, second = tps = TopicPartition(spoiled, 0), TopicPartition(spoiled, 1)
    found: dict[TopicPartition, list[bytes | None]] = {first: [], second: []}
    failure: TransportError | None = None
    async with member(topics, spoiled) as transport, asyncio.timeout(HANG_S):
        for tp in tps:
            transport.seek(tp, 0)
        while failure is None or not found[second]:
            try:
                for tp, records in (await transport.poll(tps, timeout_s=0.2)).items():
                    found[tp] += [record.value for record in records]
            except TransportError as exc:
                failure = exc
        # As a process goes on that leaves the partition out.
        transport.seek(first, 5)
        while len(found[first]) < 4:
            for tp, records in (await transport.poll([first], timeout_s=0.2)).items():
                found[tp] += [record.value for record in records]

    assert found == {first: [b"0", b"1", b"5", b"6"], second: [b"other"]}
    assert (failure.code, failure.tps, failure.offset) == ("batch_unreadable", frozenset({first}), 2)


async def test_a_reader_passes_over_a_corrupt_batch_and_says_where_it_lies(spoiled: str, topics: Topics) -> None:
    passed: list[tuple[TopicPartition, int, int]] = []

    def note(tp: TopicPartition, offset: int, after: int) -> None:
        passed.append((tp, offset, after))

    connection = KafkaConnection(topics.bootstrap_servers)
    async with open_reader(connection, [spoiled], from_beginning=True, unreadable=note) as reader:
        whole = [record.value async for record in reader.until_end()]
    end = []
    async with open_tail(connection, spoiled, since_ms=0, records_max=1000, noted={}, unreadable=note) as tail:
        while await tail.positions() != tail.ends:
            end += [record.value for record in await tail.poll()]

    assert sorted(whole, key=str) == sorted(end, key=str) == [b"0", b"1", b"5", b"6", b"other"]
    assert passed == [(TopicPartition(spoiled, 0), 2, 5)] * 2
