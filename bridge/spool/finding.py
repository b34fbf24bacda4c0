"""Bring what the segments on disk hold into the book, at a start and when a missing key comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import structlog

from bridge.runtime.hand import Hand
from bridge.spool.book import Book
from bridge.spool.disk import Disk
from bridge.spool.format import Entry, Intact, Lane, UnreadableEntryError
from bridge.spool.keys import KeyRing
from bridge.spool.metrics import SpoolMetrics
from bridge.spool.places import Place, Segment
from bridge.spool.recovery import Content, Opened, copy_damage, examine, unseal_all
from bridge.spool.writer import segment_name

log = structlog.get_logger()

# Opened at once, so that neither the loop nor the memory is taken by a whole segment.
BATCH = 200
# Why a record is locked now and may not be the next time, within this process.
_PASSING = {"no_key", "busy"}


class Finder:
    """Reads segments on the spool's threads and enters them on the loop's."""

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        hand: Hand,
        reading: Hand,
        keys: KeyRing,
        book: Book,
        metrics: SpoolMetrics,
        mark_end: Callable[[int, int], None],
        is_quiet: Callable[[Lane], bool],
    ) -> None:
        """Enter into `book` what the keys of `keys` open.

        Args:
            directory: Where the segments are.
            disk: The file system.
            hand: What works on it.
            reading: What reads from it where that may take long.
            keys: What opens.
            book: What is known.
            metrics: What is reported.
            mark_end: Says of a segment how many records it has.
            is_quiet: False while something may become the head of a lane; nothing comes in between, but waits.
        """
        self._directory = directory
        self._disk = disk
        self._hand = hand
        self._reading = reading
        self._keys = keys
        self._book = book
        self._metrics = metrics
        self._mark_end = mark_end
        self.is_quiet = is_quiet
        self.last_ordinal = 0

    async def recover(self, numbers: Sequence[int], found: Callable[[Entry], None]) -> None:
        """Enter the segments of these numbers, oldest first, and pass each entry that waits to `found`."""
        for number in numbers:
            segment = self._book.segment(number, segment_name(number))
            segment.newest = number == numbers[-1]
            await self.find(segment, found)

    async def find_locked(self, found: Callable[[Entry], None]) -> None:
        """Enter the records whose key has come back."""
        if not any(segment.locked for segment in self._book.segments.values()):
            return
        await self._hand.do(self._keys.load)
        back = self._keys.opening.keys()
        for segment in [segment for segment in self._book.segments.values() if segment.missing & back]:
            content = await self._reading.do(partial(self._examine, segment))
            if content is not None:
                records = [record for record in content.scan.records if record.head.number in segment.locked]
                if content.is_read:
                    segment.missing = set()
                await self._enter(segment, content.content, records, found)

    async def leave_out(self, lane: Lane, damaged: Sequence[tuple[Segment, Place]]) -> None:
        """Take what was found damaged out of a lane."""
        for segment, place in damaged:
            segment.aside.append((place.offset, place.offset + place.length))
            self._book.remove(lane, [place])
            await self.keep_damage(segment, (), records=1)

    async def copy_again(self) -> None:
        """Copy the damage that could not be copied before."""
        for segment in list(self._book.segments.values()):
            if segment.aside:
                await self.keep_damage(segment, (), records=0)

    async def keep_damage(self, segment: Segment, damage: Sequence[tuple[int, int]], *, records: int) -> None:
        """Count damage and copy it to where it stays; the segment is kept until that has worked."""
        if records:
            self._metrics.spool_corrupt_records.inc(records)
            log.error("worker.spool_damaged", segment=segment.path.stem, records=records)
        segment.aside += damage
        pending = tuple(segment.aside)
        copied = set(pending).difference(await self._hand.do(partial(copy_damage, self._disk, segment.path, pending)))
        segment.aside = [each for each in segment.aside if each not in copied]

    async def find(self, segment: Segment, found: Callable[[Entry], None]) -> None:
        """Enter what a segment holds; while the disk keeps part of it back, nothing in the file is touched."""
        # Until the last record is entered: a file that seems to hold nothing would be removed, and overtaken.
        segment.entering = True
        content = await self._reading.do(partial(self._examine, segment))
        unread = content is None or not content.is_read
        if unread != segment.unread:
            segment.unread = unread
            log.error("worker.spool_unread", segment=segment.path.stem, code="unread" if unread else "read")
        if content is None:
            segment.entering = False
            return
        self._book.resize(segment, content.whole)
        if content.scan.is_foreign and not segment.foreign:
            segment.foreign = True
            log.error("worker.spool_locked", segment=segment.path.stem, records=0, code="unknown_version")
        for record in content.scan.records:
            if record.head.is_known:
                self.last_ordinal = max(self.last_ordinal, record.head.ordinal)
        waiting = [record for record in content.waiting if record.head.number not in segment.seen]
        segment.seen = segment.seen.union(record.head.number for record in content.scan.records) if unread else set()
        if content.is_read and not segment.foreign:
            await self._settle(segment, content)
        await self._enter(segment, content.content, waiting, found)

    async def _settle(self, segment: Segment, content: Content) -> None:
        """Deal with what is wrong with a segment that was read from end to end."""
        if content.scan.torn_at is not None:
            self._metrics.spool_torn_tails.inc()
            log.warning("worker.spool_torn_tail", segment=segment.path.stem)
            await self._hand.do(partial(self._cut, segment.path, content.whole))
        if segment.newest and content.waiting and not content.scan.is_ended:
            # Nothing is appended to a segment of an earlier process.
            await self._hand.do(partial(self._mark_end, segment.number, content.scan.total))
        if content.scan.damage or content.scan.lost:
            await self.keep_damage(segment, content.scan.damage, records=content.scan.lost)

    def _examine(self, segment: Segment) -> Content | None:
        try:
            return examine(self._disk, segment.path, number=segment.number, newest=segment.newest)
        except OSError:
            return None

    def _cut(self, path: Path, size: int) -> None:
        with contextlib.suppress(OSError):  # it is told from the rest again at the next start
            self._disk.cut(path, size)

    async def _enter(
        self, segment: Segment, content: bytes, records: Sequence[Intact], found: Callable[[Entry], None]
    ) -> None:
        """Enter records batch by batch; whatever is dropped meanwhile, the file stays until the last of them."""
        damage: list[tuple[int, int]] = []
        locked = Counter[str]()
        segment.entering = True
        for first in range(0, len(records), BATCH):
            batch = records[first : first + BATCH]
            opened = await self._hand.do(partial(unseal_all, content, batch, self._keys.opening))
            damage += self._place(segment, opened, found, locked)
            await asyncio.sleep(0)
        segment.aside += damage
        segment.entering = False
        for code, count in (+locked).items():
            log.error("worker.spool_locked", segment=segment.path.stem, records=count, code=code)
        if damage:
            await self.keep_damage(segment, (), records=len(damage))

    def _place(
        self, segment: Segment, opened: Opened, found: Callable[[Entry], None], locked: Counter[str]
    ) -> list[tuple[int, int]]:
        """Enter a batch in one step, then tell of it; return the ranges of those whose seal does not hold."""
        damage = []
        entries: list[tuple[Entry, Place]] = []
        for record, entry, lock in zip(opened.records, opened.entries, opened.locks, strict=True):
            number = record.head.number
            code = lock or ("busy" if entry is not None and not self.is_quiet(entry.lane) else "")
            if code in _PASSING:
                segment.missing.add(record.head.key_id)
            if code:
                _lock(segment, number, code, locked)
                continue
            segment.locked.discard(number)
            if entry is None:
                damage.append((record.offset, record.offset + record.head.size))
            else:
                segment.keys.add(record.head.key_id)
                entries.append((entry, _place_of(segment, record)))
        for lane, places in _by_lane(entries).items():
            self._book.enter(lane, places)
        unreadable = [each for each in entries if not _is_told(each[0], found)]
        for lane, places in _by_lane(unreadable).items():
            self._book.remove(lane, places)
            for place in places:
                _lock(segment, place.number, "unknown_layout", locked)
        return damage


def _lock(segment: Segment, number: int, code: str, locked: Counter[str]) -> None:
    """Keep a record that cannot be opened; what is new of that is counted."""
    locked[code] += number not in segment.locked
    segment.locked.add(number)


def _by_lane(entries: Iterable[tuple[Entry, Place]]) -> dict[Lane, list[Place]]:
    lanes: defaultdict[Lane, list[Place]] = defaultdict(list)
    for entry, place in entries:
        lanes[entry.lane].append(place)
    return lanes


def _is_told(entry: Entry, found: Callable[[Entry], None]) -> bool:
    """Tell of an entry; return whether this version can read it."""
    try:
        found(entry)
    except UnreadableEntryError:
        return False
    return True


def _place_of(segment: Segment, record: Intact) -> Place:
    """Return where the book says that a record is."""
    return Place(segment.index, record.offset, record.head.size, record.head.number, record.head.at_ms)
