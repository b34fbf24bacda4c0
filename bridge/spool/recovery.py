"""Bring what the segments on disk hold into the index, at a start and when it can be read again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import structlog

from bridge.runtime.hand import Hand
from bridge.spool.availability import SpoolMetrics
from bridge.spool.disk import Disk, read_what_can_be
from bridge.spool.index import Index, Place, Segment
from bridge.spool.keys import KeyRing
from bridge.spool.reader import Source, read_entries
from bridge.spool.segment import (
    SUFFIX,
    Entry,
    Intact,
    Key,
    Lane,
    Scan,
    UnreadableEntryError,
    read_positions,
    scan,
    segment_name,
    unseal,
)

POSITIONS_SUFFIX = ".positions"
DAMAGED = "damaged"
# What `damaged` may take, beside the capacity: eight whole segments (`writer.SEGMENT_BYTES`), in as many files as are
# listed in some milliseconds. Beyond that a damaged range stays where it is, and so does its segment.
DAMAGED_MAX = 1000
DAMAGED_MAX_BYTES = 67_108_864

# Why a record cannot be opened; empty when it can.
Lock = Literal["", "no_key", "unknown_version"]

_is_segment = re.compile(rf"([0-9a-f]{{16}}){re.escape(SUFFIX)}").fullmatch


class Content(NamedTuple):
    """A segment file as it was read.

    Attributes:
        waiting: Intact records that are not acknowledged, by running number.
        whole: Bytes of the file that count; what is behind them is cut off.
        is_read: False while the disk does not give all of it back: then only the records that were found are known.
    """

    number: int
    content: bytes
    scan: Scan
    waiting: list[Intact]
    whole: int
    is_read: bool


class Opened(NamedTuple):
    """Some records and what they hold: an entry, why it is locked, or neither where the seal does not hold."""

    records: Sequence[Intact]
    entries: list[Entry | None]
    locks: list[Lock]


def segment_numbers(disk: Disk, directory: Path) -> list[int]:
    """Return the numbers of all segments, oldest first."""
    return sorted(int(match[1], 16) for match in map(_is_segment, disk.names(directory)) if match)


def positions_path(segment: Path) -> Path:
    """Return the side file of a segment."""
    return segment.with_suffix(POSITIONS_SUFFIX)


def examine(disk: Disk, path: Path, *, number: int, newest: bool) -> Content:
    """Read one segment and tell what is in it; changes nothing.

    Raises:
        OSError: It cannot be read at all.
    """
    content, is_read = read_what_can_be(disk, path)
    result = scan(content, segment=number, newest=newest)
    if not is_read:
        # What was not read may be all that is missing: nothing is torn, damaged or lost as far as anybody knows.
        result = result._replace(damage=[], total=len(result.records), torn_at=None)
    acknowledged = _acknowledged(disk, path, number)
    waiting = [record for record in result.records if record.head.number not in acknowledged]
    whole = len(content) if result.torn_at is None else result.torn_at
    return Content(number, content, result, waiting, whole, is_read)


def unseal_all(content: bytes, records: Sequence[Intact], keys: Mapping[bytes, Key]) -> Opened:
    """Open some records of a segment's content."""
    entries: list[Entry | None] = []
    locks: list[Lock] = []
    for record in records:
        key = keys.get(record.head.key_id)
        lock: Lock = "" if record.head.is_known and key else "no_key" if record.head.is_known else "unknown_version"
        end = record.offset + record.head.size
        entries.append(unseal(content[record.offset : end], key) if key and not lock else None)
        locks.append(lock)
    return Opened(records, entries, locks)


def copy_damage(disk: Disk, segment: Path, damage: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Copy damaged ranges, still sealed, to where they stay; return those that could not be."""
    if not damage:
        return []
    directory = segment.parent / DAMAGED
    try:
        names = disk.names(directory)
        size = sum(disk.size(directory / name) for name in names)
    except OSError:
        return list(damage)
    failed = []
    for start, end in damage:
        name = f"{segment.stem}-{start}-{end}"
        if name in names:
            continue  # it was copied at an earlier start
        if len(names) >= DAMAGED_MAX or size + end - start > DAMAGED_MAX_BYTES:
            failed.append((start, end))
            continue
        try:
            _copy(disk, segment, start, end, path=directory / name)
        except FileNotFoundError:
            continue  # somebody removed the file: there is nothing left to copy
        except OSError:
            failed.append((start, end))
            continue
        names.append(name)
        size += end - start
    return failed


def remove_orphans(disk: Disk, directory: Path) -> None:
    """Remove side files whose segment is gone."""
    with contextlib.suppress(OSError):
        names = set(disk.names(directory))
        for name in names:
            if name.endswith(POSITIONS_SUFFIX) and name.removesuffix(POSITIONS_SUFFIX) + SUFFIX not in names:
                disk.unlink(directory / name)


def _acknowledged(disk: Disk, path: Path, number: int) -> set[int]:
    side = positions_path(path)
    try:
        return read_positions(disk.read(side, 0, disk.size(side)), segment=number)
    except OSError:
        return set()


def _copy(disk: Disk, segment: Path, start: int, end: int, *, path: Path) -> None:
    disk.make_directory(path.parent)
    write_whole(disk, path, disk.read(segment, start, end - start))


def write_whole(disk: Disk, path: Path, content: bytes) -> None:
    """Make a file durable, of which nobody ever sees a part under its name."""
    part = path.with_name(f"{path.name}.part")
    disk.unlink(part)
    handle = disk.create(part)
    try:
        disk.write(handle, content)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(part, path)
    disk.sync_directory(path.parent)


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
        index: Index,
        metrics: SpoolMetrics,
        mark_end: Callable[[int, int], None],
        is_quiet: Callable[[Lane], bool],
    ) -> None:
        """Enter into `index` what the keys of `keys` open.

        Args:
            directory: Where the segments are.
            disk: The file system.
            hand: What works on it.
            reading: What reads from it where that may take long.
            keys: What opens.
            index: What is known.
            metrics: What is reported.
            mark_end: Says of a segment how many records it has.
            is_quiet: False while something may become the head of a lane; nothing comes in between, but waits.
        """
        self._directory = directory
        self._disk = disk
        self._hand = hand
        self._reading = reading
        self._keys = keys
        self._index = index
        self._metrics = metrics
        self._mark_end = mark_end
        self.is_quiet = is_quiet
        self.last_ordinal = 0

    async def recover(self, numbers: Sequence[int], found: Callable[[Entry], None]) -> None:
        """Enter the segments of these numbers, oldest first, and pass each entry that waits to `found`."""
        for number in numbers:
            segment = self._index.segment(number, segment_name(number))
            segment.newest = number == numbers[-1]
            await self.find(segment, found)

    async def find_locked(self, found: Callable[[Entry], None]) -> None:
        """Enter the records whose key has come back."""
        if not any(segment.locked for segment in self._index.segments.values()):
            return
        await self._hand.do(self._keys.load)
        back = self._keys.opening.keys()
        for segment in [segment for segment in self._index.segments.values() if segment.missing & back]:
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
            self._index.remove(lane, [place])
            await self.keep_damage(segment, (), records=1)

    async def copy_again(self) -> None:
        """Copy the damage that could not be copied before."""
        for segment in list(self._index.segments.values()):
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
        self._index.resize(segment, content.whole)
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
            self._index.enter(lane, places)
        unreadable = [each for each in entries if not _is_told(each[0], found)]
        for lane, places in _by_lane(unreadable).items():
            self._index.remove(lane, places)
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
        index: Index,
        finder: Finder,
        order_s: float,
    ) -> None:
        """Read by `hand`, which may take long; what could overtake a segment is kept back `order_s` after a start."""
        self._disk = disk
        self._hand = hand
        self._keys = keys
        self._index = index
        self._finder = finder
        self._order_s = order_s
        self._held_until = math.inf
        self._attempts: dict[int, tuple[int, float]] = {}

    async def begin(self, found: Callable[[Entry], None]) -> None:
        """Give what a start could not read a little time, and have nothing overtaken for a while longer."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(AGAIN_MAX_S, self._order_s)
        for pause_s in AGAIN_S:
            if self._index.first_unknown() is None or loop.time() + pause_s > until:
                break
            await asyncio.sleep(pause_s)
            await self._find(found)
        self._held_until = loop.time() + self._order_s

    def limit(self) -> float:
        """Return from which segment, by index, nothing may be handed out now: something older may come yet."""
        first = self._index.first_unknown()
        return math.inf if first is None or asyncio.get_running_loop().time() >= self._held_until else first

    def skip(self, lane: Lane, sources: Sequence[Source]) -> None:
        """Leave records for later, so that what is behind them gets on."""
        for segment, place in sources:
            if not segment.skipped:
                log.error("worker.spool_unread", segment=segment.path.stem, code="unread")
            segment.skipped[place] = lane
        self._index.remove(lane, [place for _, place in sources])

    async def try_again(self, found: Callable[[Entry], None]) -> None:
        """Enter what the disk gives back by now."""
        loop = asyncio.get_running_loop()
        for segment in self._index.unread():
            began = loop.time()
            count, due_at = self._attempts.pop(segment.index, (0, began))
            if due_at <= began:
                await self._read(segment, found)
                ended = loop.time()
                count, due_at = count + 1, ended + _pause_s(count, ended - began)
            if segment.is_unread:
                self._attempts[segment.index] = count, due_at

    async def _find(self, found: Callable[[Entry], None]) -> None:
        for segment in self._index.unread():
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
            self._index.enter(lane, back)
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
