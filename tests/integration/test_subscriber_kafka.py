"""The subscriber on real brokers: nothing is missed and offsets never go back, whatever members and brokers do."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.dev.kafka import create_topics
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.record import Record
from bridge.kafka.transport import Place
from consumers.runtime import transport
from consumers.runtime.beginnings import Adoption, StartPolicy
from consumers.runtime.member import Membership, WatchLimits
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.subscriber import Subscriber
from consumers.runtime.transport import GroupTransport, Timing
from tests.cluster import Cluster, Topics
from tests.fake_processor import FakeProcessor
from tests.kafka import HANG_S, killed, ready_producer, until

pytestmark = pytest.mark.kafka

PARTITIONS = 4
HASTY = Timing(session_s=10, rebalance_s=10, max_poll_s=60)


@dataclass
class Group:
    """A topic, the members that read it, and what became known of them."""

    topics: Topics
    topic: str
    name: str
    producer: KafkaProducer
    stored: dict[Place, Adoption] = field(default_factory=dict)
    commits: list[Mapping[Place, int]] = field(default_factory=list)
    processors: list[FakeProcessor] = field(default_factory=list)
    written: int = 0

    @property
    def places(self) -> list[Place]:
        return [Place(self.topic, number) for number in range(PARTITIONS)]

    def open(self) -> GroupTransport:
        transport: Any = GroupTransport(
            KafkaConnection(self.topics.bootstrap_servers), group=self.name, topics=[self.topic], timing=HASTY
        )
        commit = transport.commit

        async def seen(offsets: Mapping[Place, int]) -> None:
            await commit(offsets)
            self.commits.append(dict(offsets))

        transport.commit = seen
        opened: GroupTransport = transport
        return opened

    @asynccontextmanager
    async def running(self, policy: StartPolicy = "earliest") -> AsyncIterator[tuple[Subscriber, FakeProcessor]]:
        processor = FakeProcessor(self.stored)
        self.processors.append(processor)
        membership = Membership(
            name=self.name,
            consumer="desk",
            processor=processor,
            metrics=ConsumerMetrics(CollectorRegistry(), service="desk"),
            policy=policy,
            limits=WatchLimits(look_s=0.5),
        )
        subscriber = Subscriber(membership, open_transport=self.open, address="kafka:9092")
        stop = asyncio.Event()
        task = asyncio.create_task(subscriber.run(stop))
        try:
            yield subscriber, processor
        finally:
            stop.set()
            async with asyncio.timeout(HANG_S):
                await task

    async def write(self, count: int) -> None:
        for number in range(self.written, self.written + count):
            place = self.places[number % PARTITIONS]
            event = str(number).encode()
            record = Record(*place, b"rx_1", event, [("ce_id", event)], 1_772_366_400_000)
            await self.producer.write(*place, [record])
        self.written += count

    def seen(self) -> list[int]:
        return [int(each) for processor in self.processors for place in self.places for each in processor.ids(place)]

    async def until_all_seen(self) -> None:
        await until(lambda: set(self.seen()) == set(range(self.written)))


@pytest.fixture
async def group(topics: Topics) -> AsyncIterator[Group]:
    topic = await asyncio.to_thread(topics.fresh, partitions=PARTITIONS)
    async with ready_producer(topics.bootstrap_servers, topic, partitions=PARTITIONS) as producer:
        yield Group(topics, topic, topics.unique_key("group"), producer)


def offsets_only_rise(commits: list[Mapping[Place, int]]) -> bool:
    last: dict[Place, int] = {}
    for each in commits:
        if any(offset < last.get(place, 0) for place, offset in each.items()):
            return False
        last.update(each)
    return True


async def test_a_topic_that_is_made_later_is_read_before_the_metadata_are_old(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker may learn of a new topic after the member has asked it; its group has nothing to hand out then."""
    monkeypatch.setattr(transport, "METADATA_MAX_AGE_MS", 3_600_000)
    late = replace(group, topic=f"{group.topic}-late")

    async with late.running() as (subscriber, _):
        await until(lambda: subscriber.ready() == "ok")
        await asyncio.to_thread(create_topics, group.topics.bootstrap_servers, {late.topic: PARTITIONS})
        await late.write(2 * PARTITIONS)
        await late.until_all_seen()

    assert sorted(late.seen()) == list(range(2 * PARTITIONS))


async def test_a_broker_that_dies_and_comes_back_is_waited_for(cluster: Cluster, group: Group) -> None:
    await group.write(PARTITIONS)
    async with group.running() as (subscriber, processor):
        await group.until_all_seen()
        async with killed(cluster):
            await until(lambda: subscriber.degraded() == "degraded")
            assert subscriber.live() == "ok"
        await group.write(PARTITIONS)
        await group.until_all_seen()
        await until(lambda: subscriber.degraded() == "ok")

    assert len(processor.adoptions) >= PARTITIONS
    assert offsets_only_rise(group.commits)
