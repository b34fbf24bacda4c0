"""A subscriber on a group in memory, and waits for its tasks."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from bridge.errors import TransientError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.runtime.member import Membership, WatchLimits, _Sleep
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.processor import Processor
from consumers.runtime.start_positions import Adoption, StartPolicy
from consumers.runtime.subscriber import Subscriber
from tests.fake_transport import FakeKafka, FakeTransport
from tests.waiting import HANG_S, until

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class FakeProcessor(Processor):
    """Settles records at once by default; PostgreSQL is a dictionary, which members may share.

    While `claiming` or `draining` is cleared, claims or drains do not finish. While it is `holding`, offered records
    stay unsettled until `settle` or a drain. The fence of `overtaken` partitions fails until they are adopted again.
    """

    def __init__(self) -> None:
        self.stored: dict[TopicPartition, Adoption] = {}
        self.adoptions: list[TopicPartition] = []
        self.away = False
        self.claiming = asyncio.Event()
        self.claiming.set()
        self.draining = asyncio.Event()
        self.draining.set()
        self.holding = False
        self.full: set[TopicPartition] = set()
        self.stopped_for_long: set[TopicPartition] = set()
        self.overtaken: set[TopicPartition] = set()
        self.drained: list[frozenset[TopicPartition]] = []
        self.forgotten: list[TopicPartition] = []
        self.offered: defaultdict[TopicPartition, list[ConsumedRecord]] = defaultdict(list)
        self.next_offsets: dict[TopicPartition, int] = {}

    def ids(self, tp: TopicPartition) -> list[str]:
        return [record.header("ce_id") for record in self.offered[tp]]

    async def adopt(self, tp: TopicPartition) -> Adoption:
        self.adoptions.append(tp)
        await self.claiming.wait()
        if self.away:
            raise TransientError("database_away", systemic=True)
        self.overtaken.discard(tp)
        return self.stored.get(tp, Adoption(None, None))

    def start(self, tp: TopicPartition, offset: int) -> None:
        self.next_offsets[tp] = offset

    def offer(self, tp: TopicPartition, records: Sequence[ConsumedRecord]) -> None:
        assert tp in self.next_offsets
        self.offered[tp] += records
        if not self.holding:
            self.settle(tp)

    def settle(self, tp: TopicPartition) -> None:
        last = self.offered[tp][-1]
        self.next_offsets[tp] = last.offset + 1
        self.stored[tp] = Adoption(last.offset + 1, last.header("ce_id"))

    def room(self, tp: TopicPartition) -> bool:
        return tp not in self.full

    def halted(self, tp: TopicPartition) -> bool:
        return tp in self.stopped_for_long

    def fenced(self, tp: TopicPartition) -> bool:
        return tp in self.overtaken

    async def drain(self, tps: Collection[TopicPartition], *, timeout_s: float) -> None:
        del timeout_s
        self.drained.append(frozenset(tps))
        if tps:
            await self.draining.wait()
        for tp in tps:
            if self.offered[tp]:
                self.settle(tp)

    def forget(self, tps: Collection[TopicPartition]) -> None:
        for tp in tps:
            self.next_offsets.pop(tp, None)
            self.forgotten.append(tp)

    def next_offset(self, tp: TopicPartition) -> int | None:
        return self.next_offsets.get(tp)

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()


class Group:
    def __init__(self) -> None:
        self.kafka, self.processor = FakeKafka({"t": 2}), FakeProcessor()
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
