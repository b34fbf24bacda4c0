"""A subscriber on a group in memory, and waits for its tasks."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from bridge.kafka.consumed_record import TopicPartition
from consumers.runtime.beginnings import StartPolicy
from consumers.runtime.member import Membership, WatchLimits, _Sleep
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.subscriber import Subscriber
from tests.fake_processor import FakeProcessor
from tests.fake_transport import FakeKafka, FakeTransport
from tests.waiting import HANG_S, until

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Group:
    def __init__(self) -> None:
        self.kafka = FakeKafka({"t": 2})
        self.processor = FakeProcessor()
        self.registry = CollectorRegistry()
        self.transports: list[FakeTransport] = []
        self.policy: StartPolicy = "earliest"
        self.begun: Collection[str] = ()
        self.limits = WatchLimits(look_s=0.01)
        self.drain_s = 1.0
        self.sleep: _Sleep = asyncio.sleep
        self.gives: Collection[TopicPartition] | None = None
        self.task: asyncio.Task[None] | None = None
        self.stop = asyncio.Event()
        self.subscriber: Subscriber

    @property
    def transport(self) -> FakeTransport:
        return self.transports[-1]

    def open(self) -> FakeTransport:
        self.transports.append(FakeTransport(self.kafka, gives=self.gives))
        return self.transport

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Subscriber]:
        membership = Membership(
            name="desk",
            consumer="counter",
            processor=self.processor,
            metrics=ConsumerMetrics(self.registry, service="desk"),
            policy=self.policy,
            begun=self.begun,
            drain_s=self.drain_s,
            limits=self.limits,
            sleep=self.sleep,
        )
        self.subscriber = Subscriber(membership, open_transport=self.open, address="kafka:9092")
        self.stop.clear()
        self.task = asyncio.create_task(self.subscriber.run(self.stop))
        try:
            yield self.subscriber
        finally:
            self.stop.set()
            async with asyncio.timeout(HANG_S):
                await self.task

    async def run_to_its_end(self) -> None:
        async with self.running():
            assert self.task is not None
            await asyncio.wait({self.task}, timeout=HANG_S)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"drxbridge_{name}", {"service": "desk", **labels})


async def turns(group: Group, count: int = 3) -> None:
    """Return after some more polls, when any effect would have happened."""
    polls = len(group.transport.polled)
    await until(lambda: len(group.transport.polled) >= polls + count)
