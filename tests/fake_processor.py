"""A fake of what becomes of records, to test reading without settling."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence

from bridge.errors import TransientError
from bridge.kafka.transport import ConsumedRecord, Place
from consumers.runtime.beginnings import Adoption
from consumers.runtime.processor import Processor


class FakeProcessor(Processor):
    """Settles everything at once, unless told otherwise; PostgreSQL is a dictionary, which members may share.

    While `claiming` or `draining` is cleared, claims are not answered and no drain ends; while it is `holding`, what is
    offered stays unsettled until `settle` or a drain; the fence of what is `overtaken` fails until it is adopted again.
    """

    def __init__(self, stored: dict[Place, Adoption] | None = None) -> None:
        self.stored = {} if stored is None else stored
        self.adoptions: list[Place] = []
        self.away = False
        self.claiming = asyncio.Event()
        self.claiming.set()
        self.draining = asyncio.Event()
        self.draining.set()
        self.holding = False
        self.full: set[Place] = set()
        self.stopped_for_long: set[Place] = set()
        self.overtaken: set[Place] = set()
        self.drained: list[frozenset[Place]] = []
        self.forgotten: list[Place] = []
        self.offered: defaultdict[Place, list[ConsumedRecord]] = defaultdict(list)
        self.next_offsets: dict[Place, int] = {}

    def ids(self, place: Place) -> list[str]:
        return [record.header("ce_id") for record in self.offered[place]]

    async def adopt(self, place: Place) -> Adoption:
        self.adoptions.append(place)
        await self.claiming.wait()
        if self.away:
            raise TransientError("database_away", systemic=True)
        self.overtaken.discard(place)
        return self.stored.get(place, Adoption(None, None))

    def start(self, place: Place, offset: int) -> None:
        self.next_offsets[place] = offset

    def offer(self, place: Place, records: Sequence[ConsumedRecord]) -> None:
        assert place in self.next_offsets
        self.offered[place] += records
        if not self.holding:
            self.settle(place)

    def settle(self, place: Place) -> None:
        last = self.offered[place][-1]
        self.next_offsets[place] = last.offset + 1
        self.stored[place] = Adoption(last.offset + 1, last.header("ce_id"))

    def room(self, place: Place) -> bool:
        return place not in self.full

    def halted(self, place: Place) -> bool:
        return place in self.stopped_for_long

    def fenced(self, place: Place) -> bool:
        return place in self.overtaken

    async def drain(self, places: Collection[Place], *, timeout_s: float) -> None:
        del timeout_s
        self.drained.append(frozenset(places))
        if places:
            await self.draining.wait()
        for place in places:
            if self.offered[place]:
                self.settle(place)

    def forget(self, places: Collection[Place]) -> None:
        for place in places:
            self.next_offsets.pop(place, None)
            self.forgotten.append(place)

    def next_offset(self, place: Place) -> int | None:
        return self.next_offsets.get(place)

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()
