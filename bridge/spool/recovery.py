"""Read all intact records of a directory into the index, even if others are damaged.

Each segment is read once, at startup, in the order of numbers. Entries are drained only after the last segment is in
the index, so the queues of the index only grow at their ends. Records that cannot be read (the disk fails) or decrypted
(the key is missing, or a later version wrote them) are not in the index of this process. They stay on disk unchanged,
are counted, and are read again by the next start, or as soon as a missing key is available.

A start waits for a failing disk as long as a running process waits for an unreadable record (`reader.ORDER_S`), then
continues without the missing records.
"""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from bridge.runtime.backoff import backoff_s
from bridge.runtime.io_thread import IOThread
from bridge.runtime.logging import log
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.availability import Availability
from bridge.spool.disk import LOST_SUFFIX, Disk, read_what_can_be
from bridge.spool.index import Index, Location, Segment
from bridge.spool.keys import KeyRing
from bridge.spool.segment import (
    SUFFIX,
    Entry,
    Intact,
    Key,
    Scan,
    UnreadableEntryError,
    decrypt,
    positions_path,
    read_positions,
    scan,
)
from bridge.spool.writer import SegmentWriter

# Records decrypted at a time, so that a whole segment does not block the event loop or fill memory.
BATCH = 200
# Seconds between two attempts to read a segment, doubling up to the maximum.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0

# Why a record cannot be decrypted; empty if it can.
LockedBy = Literal["", "no_key", "unknown_version"]

_is_segment = re.compile(rf"([0-9a-f]{{16}}){re.escape(SUFFIX)}").fullmatch


class Drain(Protocol):
    """Receives the entries that recovery finds; implemented by `kafka.partition_writer`."""

    def recovered(self, entry: Entry) -> None:
        """Queue an entry of an earlier process, or an unlocked one; `UnreadableEntryError` if it cannot be read."""

    def passed_over(self) -> None:
        """Note that an unknown entry will not be drained: it is damaged, or the disk fails."""


class Content(NamedTuple):
    """The content of a segment file as read."""

    raw: bytes
    scan: Scan
    waiting: list[Intact]  # intact records that are not acknowledged, by sequence number
    whole: int  # valid bytes of the file; anything after them is an unfinished write
    is_read: bool  # false if the disk could not read all of it: then only the records found are known


# A record; its entry, or None; why it is locked, or empty. Neither of the last two if decryption failed.
Opened = tuple[Intact, Entry | None, LockedBy]


@dataclass(kw_only=True, eq=False, repr=False)
class Recovery:
    """Reads segments and makes them durable on the writing thread, and adds them to the index on the event loop's."""

    disk: Disk
    thread: IOThread
    keys: KeyRing
    index: Index
    writer: SegmentWriter
    availability: Availability
    metrics: IngressMetrics
    order_s: float
    _failing_since: float | None = None
    _newest: int = 0

    async def run(self, numbers: Sequence[int], drain: Drain) -> None:
        """Add the segments of these numbers to the index, oldest first, and pass each waiting entry to `drain`."""
        self._newest = max(numbers, default=0)
        for number in numbers:
            await self._recover(self.index.segment(number), drain)

    async def unlock(self, drain: Drain) -> None:
        """Add segments whose key is available now, after waiting records; discard those of a key declared lost."""
        missing = [segment for segment in self.index.segments.values() if segment.missing]
        lost = await self.thread.run(partial(_lost_keys, self.disk, missing[0].path.parent)) if missing else set()
        for segment in missing:
            if segment.missing & self.keys.decrypting.keys():
                before, segment.missing = segment.locked, set()
                await self._recover(segment, drain)
                segment.locked -= before  # last, or the file would seem empty meanwhile
                log.info("worker.spool_unlocked", segment=segment.path.stem, records=before - segment.locked)
            elif segment.missing <= lost:  # all records of a segment have one key
                log.warning("worker.spool_given_up", segment=segment.path.stem, records=segment.locked)
                segment.locked, segment.missing, segment.is_damaged = 0, set(), True

    async def _recover(self, segment: Segment, drain: Drain) -> None:
        content = await self._read(segment)
        if content is None:
            return
        found = content.scan
        self.index.resize(segment, content.whole)
        for record in found.records:
            if record.header.is_known:
                self.index.last_ordinal = max(self.index.last_ordinal, record.header.ordinal)
        if found.is_foreign:
            segment.is_foreign = True
            log.error("worker.spool_locked", segment=segment.path.stem, records=0, code="unknown_version")
        if found.torn_at is not None:
            self.metrics.spool_torn_tails.inc()
            log.warning("worker.spool_torn_tail", segment=segment.path.stem)
        if not found.is_ended or found.torn_at is not None:
            segment.is_durable = False
            change = partial(self._make_durable, segment, content)
            await self.thread.run(partial(self.writer.attempt, segment.path, change))
        broken, locked = await self._open(segment, content, drain)
        for code, count in locked.items():
            log.error("worker.spool_locked", segment=segment.path.stem, records=count, code=code)
        if broken + found.lost:
            self.availability.note_damage(segment, broken + found.lost)

    async def _read(self, segment: Segment) -> Content | None:
        """Read a segment; None if unreadable. All segments together are waited for `order_s`."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            newest, keys = segment.number == self._newest, self.keys.decrypting
            work = partial(examine, self.disk, segment.path, number=segment.number, newest=newest, keys=keys)
            content = None
            with contextlib.suppress(OSError):
                content = await self.thread.run(work)
            is_unread = content is None or not content.is_read
            if is_unread != segment.is_unread:
                segment.is_unread = is_unread
                log.error("worker.spool_unread", segment=segment.path.stem, code="unread" if is_unread else "read")
            if not is_unread:
                return content
            if self._failing_since is None:
                self._failing_since = loop.time()
            failures += 1
            delay_s = backoff_s(failures, first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S)
            if loop.time() + delay_s > self._failing_since + self.order_s:
                return content
            await asyncio.sleep(delay_s)

    def _make_durable(self, segment: Segment, content: Content) -> None:
        """Write the records once more, without a torn tail; then append an end mark, if it is the newest segment."""
        # Its process was killed, perhaps after a failed fsync: the next fsync would not write those pages.
        ranges = [(record.offset, record.offset + record.header.size) for record in content.scan.records]
        self.disk.write_over(segment.path, content.raw[: content.whole], ranges)
        segment.is_durable = True
        if segment.number == self._newest and content.waiting and content.is_read and not segment.is_foreign:
            key = self.keys.decrypting.get(content.waiting[0].header.key_id) or self.keys.encrypting
            if key is not None:  # otherwise nothing can be appended, and this stays the newest
                self.writer.mark_end(segment.number, content.scan.total, key)

    async def _open(self, segment: Segment, content: Content, drain: Drain) -> tuple[int, Counter[str]]:
        """Decrypt waiting records in batches; return the number of failures, and why other records are locked."""
        broken = 0
        locked = Counter[str]()
        for first in range(0, len(content.waiting), BATCH):
            batch = content.waiting[first : first + BATCH]
            opened = await self.thread.run(partial(decrypt_all, content.raw, batch, self.keys.decrypting))
            for record, entry, lock in opened:
                if lock:
                    segment.locked += 1
                    segment.missing |= {record.header.key_id} if lock == "no_key" else set()
                    locked[lock] += 1
                elif entry is None:
                    broken += 1
                else:
                    segment.keys.add(record.header.key_id)
                    try:
                        drain.recovered(entry)
                    except UnreadableEntryError:
                        segment.locked += 1
                        locked["unknown_layout"] += 1
                        continue
                    header = record.header
                    location = Location(segment.index, record.offset, header.size, header.number, entry.at_ms)
                    self.index.add(entry.partition, location)
            await asyncio.sleep(0)
        return broken, +locked


def segment_numbers(disk: Disk, directory: Path) -> list[int]:
    """Return the numbers of all segments, oldest first."""
    return sorted(int(match[1], 16) for match in map(_is_segment, disk.names(directory)) if match)


def examine(disk: Disk, path: Path, *, number: int, newest: bool, keys: Mapping[bytes, Key]) -> Content:
    """Read and scan one segment, without changing it; `OSError` if it cannot be read at all."""
    content, is_read = read_what_can_be(disk, path)
    result = scan(content, segment=number, newest=newest, keys=keys)
    if not is_read:
        # Missing records may be in the unread part, so nothing is reported as torn, damaged or lost.
        result = result._replace(damage=[], total=len(result.records), torn_at=None)
    acknowledged = _acknowledged(disk, path, number, keys)
    waiting = [record for record in result.records if record.header.number not in acknowledged]
    whole = len(content) if result.torn_at is None else result.torn_at
    return Content(content, result, waiting, whole, is_read)


def decrypt_all(content: bytes, records: Sequence[Intact], keys: Mapping[bytes, Key]) -> list[Opened]:
    """Decrypt some records of a segment's content."""
    opened: list[Opened] = []
    for record in records:
        header = record.header
        key = keys.get(header.key_id)
        lock: LockedBy = "" if header.is_known and key else "no_key" if header.is_known else "unknown_version"
        end = record.offset + header.size
        opened.append((record, decrypt(content[record.offset : end], key) if key and not lock else None, lock))
    return opened


def _lost_keys(disk: Disk, directory: Path) -> set[bytes]:
    """Return the ids of the keys that an operator has declared lost."""
    names = disk.names(directory)
    return {bytes.fromhex(name.removesuffix(LOST_SUFFIX)) for name in names if name.endswith(LOST_SUFFIX)}


def _acknowledged(disk: Disk, path: Path, number: int, keys: Mapping[bytes, Key]) -> set[int]:
    side = positions_path(path)
    try:
        return read_positions(disk.read(side, 0, disk.size(side)), segment=number, keys=keys.values())
    except OSError:
        return set()
