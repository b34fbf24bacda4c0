"""The partitions that this member holds: adopted, drained, fenced, forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

import structlog

from bridge.errors import BridgeError
from bridge.kafka.transport import Place
from consumers.runtime.ledger import Claim
from consumers.runtime.share import Share
from consumers.runtime.tally import Tally

log = structlog.get_logger()

# What is taken in and not settled is bounded per partition and per process.
WINDOW_RECORDS = 1_024
WINDOW_BYTES = 32 * 1024 * 1024
# What is settled above a record that is tried again is kept as an offset and an id, some 4 MB of a partition at most:
# the other keys go on for so many records.
SETTLED_RECORDS = 16 * WINDOW_RECORDS


class Shares:
    """Keeps one share for each place."""

    def __init__(self, *, group: str, tally: Tally) -> None:
        """Start with none."""
        self._group = group
        self._tally = tally
        self._shares: dict[Place, Share] = {}
        self._fenced: set[Place] = set()
        self.none_left = asyncio.Event()
        self.none_left.set()

    def __getitem__(self, place: Place) -> Share:
        return self._shares[place]

    def find(self, place: Place) -> Share | None:
        """Return what is held of a place."""
        return self._shares.get(place)

    def all(self) -> list[Share]:
        """Return every share."""
        return list(self._shares.values())

    def open(self) -> list[Share]:
        """Return the shares that records are settled of."""
        return [share for share in self._shares.values() if share.opened and not share.gone]

    def room(self, place: Place) -> bool:
        """Whether more of a place may be taken in now."""
        share = self._shares.get(place)
        if share is None or share.window.unsettled >= WINDOW_RECORDS or share.window.count >= SETTLED_RECORDS:
            return False
        return sum(each.window.size for each in self._shares.values() if not each.stopped) < WINDOW_BYTES

    def mark(self, place: Place) -> int | None:
        """Return the offset below which everything of a place is settled; None before its records are expected."""
        share = self._shares.get(place)
        return share.window.mark if share is not None and share.opened else None

    def adopt(self, place: Place, claim: Claim) -> Share:
        """Hold a place as it was claimed; what was held of it counts for nothing."""
        self.forget((place,))
        share = self._shares[place] = Share(place, claim)
        self.none_left.clear()
        return share

    def forget(self, places: Collection[Place]) -> None:
        """Drop all that is known of these."""
        for place in places:
            self._fenced.discard(place)
            share = self._shares.pop(place, None)
            if share is not None:
                share.close()
        if not self._shares:
            self.none_left.set()

    def close(self) -> None:
        """Settle nothing any more; the marks stay known until their places are forgotten."""
        for share in self._shares.values():
            share.close()

    async def forgotten(self, stop: asyncio.Event) -> None:
        """Wait for the reader, which drains and commits after `stop`; what is held is needed for that."""
        await stop.wait()
        await self.none_left.wait()

    def is_fenced(self, place: Place) -> bool:
        """Whether a transaction found that the place was claimed since."""
        return place in self._fenced

    def fence(self, share: Share) -> None:
        """Let go of what another has claimed, or what stands elsewhere than we thought; it is to be adopted again."""
        self._tally.fenced()
        if share.gone:
            return
        log.warning("worker.fenced", group=self._group, topic=share.place.topic, partition=share.place.partition)
        self.renew(share)

    def renew(self, share: Share) -> None:
        """Let go of a place, which is to be adopted again."""
        share.close()
        if self._shares.get(share.place) is share:
            self._fenced.add(share.place)

    def stop(self, share: Share, why: BridgeError) -> None:
        """Settle nothing of a place any more: an operator must look."""
        if share.stopped:
            return
        share.stop(why)
        place = {"topic": share.place.topic, "partition": share.place.partition}
        log.error("worker.partition_stopped", group=self._group, code=why.code, **place)

    def wake(self) -> None:
        """Let the driver of each look again."""
        for share in self._shares.values():
            share.wake.set()

    async def drain(self, places: Iterable[Place], *, timeout_s: float) -> list[Share]:
        """Start no new record of these; return those whose records in flight are settled, and give up the others."""
        shares = [self._shares[place] for place in places if place in self._shares]
        for share in shares:
            share.draining = True
            share.wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                for share in shares:
                    if not share.gone:
                        await share.idle.wait()
        except TimeoutError:
            for share in shares:
                if share.active and not share.gone:
                    place = {"topic": share.place.topic, "partition": share.place.partition}
                    log.warning("worker.given_up", group=self._group, **place)
                    share.close()
        return [share for share in shares if not share.gone]
