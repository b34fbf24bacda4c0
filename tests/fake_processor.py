"""A fake processor, to test reading without settling."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence

from bridge.errors import TransientError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.runtime.beginnings import Adoption
from consumers.runtime.processor import Processor


class FakeProcessor(Processor):
    """Settles records at once by default; PostgreSQL is a dictionary, which members may share.

    While `claiming` or `draining` is cleared, claims or drains do not finish. While it is `holding`, offered records
    stay unsettled until `settle` or a drain. The fence of `overtaken` partitions fails until they are adopted again.
    """

    def __init__(self, stored: dict[TopicPartition, Adoption] | None = None) -> None:
        self.stored = {} if stored is None else stored
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
