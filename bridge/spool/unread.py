"""What the disk does not give back now: kept as it is, tried again, and overtaken only when that takes too long."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from bridge.runtime.hand import Hand
from bridge.spool.book import Book
from bridge.spool.disk import Disk
from bridge.spool.finding import BATCH, Finder
from bridge.spool.format import Entry, Lane
from bridge.spool.keys import KeyRing
from bridge.spool.places import Place, Segment
from bridge.spool.reading import Source, read_entries

log = structlog.get_logger()

# A start tries again so often, and for so long in all: what has passed by then costs no order anywhere.
AGAIN_S = (0.05, 0.15, 0.4, 1.0)
AGAIN_MAX_S = 2.0
# Reading a failing disk keeps it busy: after some attempts the next waits longer each time, up to the most.
PROMPT_ATTEMPTS = 3
RETRY_FIRST_S = 4.0
RETRY_MAX_S = 60.0


class Unread:
    """Segments and records that could not be read; belongs to the loop's thread."""

    def __init__(
        self,
        *,
        disk: Disk,
        hand: Hand,
        keys: KeyRing,
        book: Book,
        finder: Finder,
        order_s: float,
    ) -> None:
        """Read by `hand`, which may take long; what could overtake a segment is kept back `order_s` after a start."""
        self._disk = disk
        self._hand = hand
        self._keys = keys
        self._book = book
        self._finder = finder
        self._order_s = order_s
        self._held_until = math.inf
        self._attempts: dict[int, tuple[int, float]] = {}

    async def begin(self, found: Callable[[Entry], None]) -> None:
        """Give what a start could not read a little time, and have nothing overtaken for a while longer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(AGAIN_MAX_S, self._order_s)
        for pause_s in AGAIN_S:
            if self._book.first_unknown() is None or loop.time() + pause_s > until:
                break
            await asyncio.sleep(pause_s)
            await self._find(found)
        self._held_until = loop.time() + self._order_s

    def limit(self) -> float:
        """Return from which segment, by index, nothing may be handed out now: something older may come yet."""
        first = self._book.first_unknown()
        return math.inf if first is None or asyncio.get_running_loop().time() >= self._held_until else first

    def skip(self, lane: Lane, sources: Sequence[Source]) -> None:
        """Leave records for later, so that what is behind them gets on."""
        for segment, place in sources:
            if not segment.skipped:
                log.error("worker.spool_unread", segment=segment.path.stem, code="unread")
            segment.skipped[place] = lane
        self._book.remove(lane, [place for _, place in sources])

    async def try_again(self, found: Callable[[Entry], None]) -> None:
        """Enter what the disk gives back by now."""
        loop = asyncio.get_running_loop()
        for segment in self._book.unread():
            began = loop.time()
            count, due_at = self._attempts.pop(segment.index, (0, began))
            if due_at <= began:
                await self._read(segment, found)
                ended = loop.time()
                count, due_at = count + 1, ended + _pause_s(count, ended - began)
            if segment.is_unread:
                self._attempts[segment.index] = count, due_at

    async def _find(self, found: Callable[[Entry], None]) -> None:
        for segment in self._book.unread():
            await self._finder.find(segment, found)

    async def _read(self, segment: Segment, found: Callable[[Entry], None]) -> None:
        if segment.unread:
            await self._finder.find(segment, found)
        lanes: defaultdict[Lane, list[Place]] = defaultdict(list)
        for place, lane in segment.skipped.items():
            lanes[lane].append(place)
        for lane, places in lanes.items():
            for first in range(0, len(places), BATCH):
                await self._read_places(segment, lane, places[first : first + BATCH], found)
        if lanes and not segment.is_unread:
            log.error("worker.spool_unread", segment=segment.path.stem, code="read")

    async def _read_places(
        self, segment: Segment, lane: Lane, places: Sequence[Place], found: Callable[[Entry], None]
    ) -> None:
        sources = [(segment, place) for place in places]
        outcome = await self._hand.do(partial(read_entries, self._disk, self._keys.opening, lane, sources, skip=True))
        if not self._finder.is_quiet(lane):
            return
        elsewhere = {place for _, place in outcome.damaged + outcome.unread}
        back = [place for place in places if place not in elsewhere][: len(outcome.entries)]
        damaged = [place for _, place in outcome.damaged]
        for place in back + damaged:
            del segment.skipped[place]
        if back:
            self._book.enter(lane, back)
        for entry in outcome.entries:
            found(entry)
        if damaged:
            ranges = [(place.offset, place.offset + place.length) for place in damaged]
            await self._finder.keep_damage(segment, ranges, records=len(ranges))


def _pause_s(attempts: int, took_s: float) -> float:
    """Return how long a disk is left alone: for longer than it was kept busy, once some attempts were in vain."""
    if attempts < PROMPT_ATTEMPTS:
        return 0.0
    return max(took_s, min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(attempts - PROMPT_ATTEMPTS, 16)))
