"""Keep entries durably on local disk, by partition and in order, until they are acknowledged.

An entry passes through these parts:

- `append` passes it to the group commit (`writer`), which encrypts it (`segment`), appends it to the newest segment
  file, and syncs the file. Then its location is added to the `index` and the call returns.
- `peek` reads the first entries of a partition (`reader`), `acknowledge` removes them. Their sequence numbers are
  written to the segment's positions file a little later; after a crash in between they are drained twice. A segment
  without waiting entries is removed.
- At startup existing entries are read into the index, oldest first (`recovery`).

A read error never truncates, removes or hides anything. A record that cannot be read or decrypted is counted, stays on
disk unchanged, and is read again by the next start, or once its missing key is available. In a running process the
partition waits for it for `reader.ORDER_S`, then later records continue. A record that was read and fails its check is
damaged: it is counted, and its segment is moved to `damaged/` instead of being removed.

Two threads do the blocking disk operations: one writes, one reads. Everything else runs on the event loop's thread.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bridge.errors import NotDurableError
from bridge.runtime.backoff import backoff_s
from bridge.runtime.failpoints import hit
from bridge.runtime.io_thread import IOThread
from bridge.runtime.lifecycle import repeat
from bridge.runtime.logging import log
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.availability import Availability
from bridge.spool.disk import DAMAGED, FULL, Disk, code_of
from bridge.spool.index import Index, Segment
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.reader import ORDER_S, Reader
from bridge.spool.recovery import Drain, Recovery, segment_numbers
from bridge.spool.segment import (
    POSITIONS_SUFFIX,
    SUFFIX,
    Entry,
    SpoolPartition,
    encrypted_size,
    positions_frame,
    positions_path,
    segment_bytes,
    segment_name,
)
from bridge.spool.set_aside import keep, names_of
from bridge.spool.writer import STALLED_S, GroupCommit, SegmentWriter

# Seconds; freed space, a released lock and a new key are noticed within two of these.
RETRY_S = 2.0
RETRY_MAX_S = 30.0  # between two attempts of a change of a segment that the disk fails
# Seconds at shutdown for groups being written.
FINISH_S = 5.0
# Seconds until positions are written; records whose positions a crash loses are drained twice.
POSITIONS_S = 0.05
# Bytes; a smaller active segment is not removed when it happens to be empty.
KEEP_OPEN_BYTES = 1_048_576


class Held(NamedTuple):
    """Counts of the content of a spool."""

    events: int  # waiting records
    locked: int  # records that cannot be decrypted
    damaged: int  # damaged records found by this process
    unread: int  # segments that could not be read completely


class Directory:
    """The directory of a spool: lock, keys, positions and removal; methods run on the writing thread."""

    def __init__(self, directory: Path, *, disk: Disk, keys: KeyRing, writer: SegmentWriter) -> None:
        self._directory = directory
        self._disk = disk
        self._keys = keys
        self._writer = writer
        self._lock: int | None = None
        self._missing: set[bytes] = set()
        self.numbers: list[int] = []  # numbers of the segments present when it was locked, oldest first

    def open(self) -> str:
        """Lock the directory for this process and read the keys; return the code of a failure, or an empty string."""
        try:
            self._disk.make_directory(self._directory)
            self._lock = self._disk.lock(self._directory)
            self.numbers = segment_numbers(self._disk, self._directory)
            for number in self.numbers:
                self._check_owner(self._directory / segment_name(number))
        except OSError as exc:
            self.close()
            return code_of(exc)
        self._writer.last_number = max(self.numbers, default=0)
        self._keys.load()
        self._remove_orphans()
        return ""

    def prepare(self, needed: AbstractSet[bytes]) -> str:
        """Check by a test write, and check the keys; return why a write would fail, or an empty string."""
        try:
            self._disk.probe(self._directory)
        except OSError as exc:
            return code_of(exc)
        self._keys.load()
        if self._keys.current is None and self._keys.is_empty:
            self._make_key()
        return self.check_keys(needed)

    def check(self, needed: AbstractSet[bytes]) -> str:
        """Check like `prepare`, but without writing."""
        try:
            if not self._writer.is_begun:
                self._disk.may_write(self._directory)
        except OSError as exc:
            return code_of(exc)
        return self.check_keys(needed)

    def free_bytes(self) -> int:
        """Return the free bytes of the disk; 0 if unknown."""
        try:
            return self._disk.free(self._directory)
        except OSError:
            return 0

    def check_keys(self, needed: AbstractSet[bytes]) -> str:
        """Check that all needed keys, including the current one, have files; return a code, or an empty string.

        Keys in memory can still decrypt everything, but after a crash only keys in files can: accepted events must not
        depend on a key that a restart would not find.
        """
        self._keys.load()
        current = self._keys.current
        missing = {*needed, *([current.id] if current else [])} - self._keys.present
        if missing - self._missing:
            log.error("worker.spool_key_missing", keys=sorted(key.hex() for key in missing))
        self._missing = missing
        return NO_KEY if missing or current is None else ""

    def note(self, segment: Path, number: int, numbers: Sequence[int], key_id: bytes) -> None:
        """Append to the positions file which records are acknowledged."""
        hit("before_positions")
        with contextlib.suppress(OSError):  # only causes duplicates
            frame = positions_frame(number, numbers, self._keys.decrypting[key_id])
            self._disk.append(positions_path(segment), frame)

    def remove(self, segment: Path, *, is_damaged: bool) -> None:
        """Remove a segment without waiting records, and then its positions; keep both if it has damage."""
        if is_damaged:
            self._disk.make_directory(self._directory / DAMAGED)
            for path in (segment, positions_path(segment)):
                self._disk.rename(path, self._directory / DAMAGED / path.name)
        else:
            self._disk.unlink(segment)
            self._disk.sync_directory(self._directory)
            self._disk.unlink(positions_path(segment))

    def close(self) -> None:
        """Stop writing and release the directory."""
        self._writer.end_segment()
        self._writer.retry()
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    def _check_owner(self, segment: Path) -> None:
        """Raise `PermissionError` if a segment may not be read, so that no later one is drained before it."""
        try:
            self._disk.may_read(segment)
        except PermissionError:
            raise
        except OSError:
            return  # recovery tries to read it, and reads the others

    def _remove_orphans(self) -> None:
        """Remove positions files whose segment is gone."""
        with contextlib.suppress(OSError):
            names = set(self._disk.names(self._directory))
            for name in names:
                if name.endswith(POSITIONS_SUFFIX) and name.removesuffix(POSITIONS_SUFFIX) + SUFFIX not in names:
                    self._disk.unlink(self._directory / name)

    def _make_key(self) -> None:
        """Create the first key, unless records exist: then their key is missing, which must be reported."""
        with contextlib.suppress(OSError):
            if segment_numbers(self._disk, self._directory):
                return
            if self._keys.directory.is_relative_to(self._directory):
                # A missing directory elsewhere is not mounted: a key created there would be lost with the pod.
                self._disk.make_directory(self._keys.directory)
            self._keys.make()
            self._keys.load()


class Spool:
    """The spool of one process; all methods are called on one event loop."""

    def __init__(
        self,
        *,
        directory: Path,
        key_dir: Path,
        capacity_bytes: int,
        metrics: IngressMetrics,
        disk: Disk | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        thread: Callable[[str], IOThread] = IOThread,
        stalled_s: float = STALLED_S,
        finish_s: float = FINISH_S,
        order_s: float = ORDER_S,
    ) -> None:
        """Nothing is opened yet.

        Segments are named after `now_ns`. Entries are refused while the disk needs longer than `stalled_s` for one
        group; groups being written have `finish_s` at shutdown. A partition waits `order_s` for an unreadable record.
        """
        disk = disk or Disk()
        self._finish_s = finish_s
        # Separate threads, so that the drain does not wait for slow writes, nor writes for slow reads.
        self._writing, self._reading = writing, reading = thread("spool-writer"), thread("spool-reader")
        self._keys = keys = KeyRing(key_dir)
        self._index = index = Index(directory)
        self._availability = availability = Availability(
            metrics, directory=directory, capacity_bytes=capacity_bytes, index=index
        )
        size = segment_bytes(capacity_bytes)
        self._writer = writer = SegmentWriter(
            directory=directory, disk=disk, keys=keys, segment_bytes=size, now_ns=now_ns
        )
        self._directory = Directory(directory, disk=disk, keys=keys, writer=writer)
        self._commits = GroupCommit(
            thread=writing, writer=writer, index=index, availability=availability, metrics=metrics, stalled_s=stalled_s
        )
        self._recovery = Recovery(
            disk=disk,
            thread=writing,
            keys=keys,
            index=index,
            writer=writer,
            availability=availability,
            metrics=metrics,
            order_s=order_s,
        )
        self._reader = Reader(
            disk=disk, thread=reading, keys=keys, index=index, availability=availability, order_s=order_s
        )
        self._disk = disk
        self._path = directory
        self._set_aside_records = metrics.spool_set_aside_records
        metrics.spool_failing_segments.set_function(lambda: self.failing)
        self._failures, self._retry_at = 0, 0.0
        self._unwritten: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._drain: Drain
        self.is_open = False  # the index has the records on disk, even if new entries are refused
        self._is_closed = False

    @property
    def code(self) -> str:
        """Why entries are refused; empty if they are accepted."""
        return self._availability.code

    def last_ordinal(self) -> int:
        """Highest ordinal recovered or appended; 0 if none."""
        return self._index.last_ordinal

    @property
    def is_durable(self) -> bool:
        """Whether all entries are known to be durable; a failing disk may lose what a start found."""
        return all(segment.is_durable or not segment.live for segment in self._index.segments.values())

    @property
    def failing(self) -> int:
        """Number of changes of segments that the disk has failed and that are retried."""
        return len(self._writer.failed)

    @property
    def held(self) -> Held:
        """Return counts of the content of the spool."""
        index = self._index
        return Held(index.events(), index.locked(), self._availability.damaged, index.unread())

    async def open(self, drain: Drain) -> None:
        """Recover existing entries; `drain` receives waiting entries in order, also entries unlocked later.

        Never raises because of the disk or its content; `code` has the reason. A failing disk adds up to `order_s`.
        """
        self._drain = drain
        await self._try_to_open()

    async def run(self, stop: asyncio.Event) -> None:
        """Run `maintain` periodically until `stop` is set."""
        await repeat(self.maintain, RETRY_S, stop)

    async def maintain(self) -> None:
        """If now possible: open, accept entries again, read unlocked segments and remove empty ones."""
        if not self.is_open:
            await self._try_to_open()
            return
        self._availability.disk_free_bytes = await self._writing.run(self._directory.free_bytes)
        await self._writing.run(self._keys.load)
        await self._recovery.unlock(self._drain)  # first, so that few later entries are drained before them
        keys = self._index.keys()
        if self._availability.refusal:
            code = await self._writing.run(partial(self._directory.prepare, keys))
            self._availability.refuse(code or self._availability.fullness())
        elif code := await self._writing.run(partial(self._directory.check, keys)):
            self._availability.refuse(code)
        if self.failing and (now := asyncio.get_running_loop().time()) >= self._retry_at:
            await self._writing.run(self._writer.retry)
            self._failures = self._failures + 1 if self.failing else 0
            self._retry_at = now + backoff_s(self._failures + 1, first_s=RETRY_S, max_s=RETRY_MAX_S)
        names = await self._writing.run(partial(names_of, self._disk, self._path))
        self._set_aside_records.set(len(names))
        self._remove_empty()

    def depth(self, partition: SpoolPartition) -> int:
        """Return the number of waiting entries of a partition."""
        return self._index.depth(partition)

    def oldest_ms(self) -> int:
        """Return when the oldest entry was accepted, in Unix milliseconds; 0 if there is none."""
        return self._index.oldest_ms()

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries in order; return when all are durable, or raise `NotDurableError` if none is."""
        if not entries:
            raise ValueError(entries)
        size = sum(map(encrypted_size, entries))
        if not self.code and not self._availability.has_room(self._commits.size + size):
            self._availability.refuse(FULL)
        if self.code:
            raise NotDurableError(self.code)
        await self._commits.put(entries, size)

    async def peek(self, partition: SpoolPartition, *, most: int, most_bytes: int) -> list[Entry]:
        """Return the first entries of a partition; empty if it has none or cannot be read now.

        Damaged records are skipped. Unreadable ones are waited for, and after `order_s` left to the next start. Nothing
        is returned before all records on disk are in the index.
        """
        if not self.is_open:
            return []
        return await self._reader.peek(partition, self._drain, most=most, most_bytes=most_bytes)

    def acknowledge(self, partition: SpoolPartition, count: int) -> None:
        """Remove the first `count` entries of a partition, which are in Kafka or set aside."""
        touched = self._index.acknowledge(partition, count)
        self._unwritten |= touched
        for index in touched:
            segment = self._index.segments[index]
            if index != self._index.active or segment.size >= KEEP_OPEN_BYTES:
                self._remove_if_empty(segment)
        self._unwritten &= self._index.segments.keys()
        if self._unwritten and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POSITIONS_S, self._write_positions)

    async def set_aside(self, partition: SpoolPartition, *, code: str) -> bool:
        """Set aside the first entry of a partition, which Kafka refuses with `code`; return whether it was.

        To be called by the drain of the partition, while none of its entries are in flight.
        """
        (location,) = self._index.head(partition, most=1, most_bytes=1)
        segment = self._index.segments[location.segment]
        try:
            name = await self._writing.run(partial(keep, self._disk, segment, location, code))
        except OSError:
            return False
        # Copied first: after a crash in between, it is at the head again, and set aside again.
        self.acknowledge(partition, 1)
        self._write_positions()
        self._set_aside_records.inc()
        log.error("worker.spool_set_aside", topic=partition[0], partition=partition[1], name=name, code=code)
        return True

    async def close(self) -> None:
        """Finish groups being written, within a bound, and release the directory."""
        if self._is_closed:
            return
        self._is_closed = True
        self._availability.close()
        await self._commits.finish(self._finish_s)
        self._write_positions()
        self._remove_empty()
        self.is_open = False
        await asyncio.wait({self._writing.run(self._directory.close)}, timeout=self._finish_s)
        for thread in (self._writing, self._reading):
            thread.end()

    async def _try_to_open(self) -> None:
        if code := await self._writing.run(self._directory.open):
            self._availability.refuse(code)
            return
        await self._recovery.run(self._directory.numbers, self._drain)
        self.is_open = True
        self._remove_empty()
        self._availability.refuse(await self._writing.run(partial(self._directory.prepare, self._index.keys())))

    def _write_positions(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for index in self._unwritten & self._index.segments.keys():
            segment = self._index.segments[index]
            numbers = segment.acknowledged.tolist()
            del segment.acknowledged[:]
            work = partial(self._directory.note, segment.path, segment.number, numbers, min(segment.keys))
            self._writing.run(work)
        self._unwritten.clear()

    def _remove_empty(self) -> None:
        for segment in list(self._index.segments.values()):
            self._remove_if_empty(segment)

    def _remove_if_empty(self, segment: Segment) -> None:
        """Remove a segment that is not needed, unless a group may be being written to it."""
        is_active = segment.index == self._index.active
        # Before recovery has ended, a segment that is not fully in the index seems empty.
        if not self.is_open or segment.is_needed or (is_active and not self._commits.is_idle):
            return
        if segment.is_damaged:
            self._write_positions()  # they are kept with the segment
        self._index.forget(segment)
        if is_active:
            self._writing.run(self._writer.end_segment)
        remove = partial(self._directory.remove, segment.path, is_damaged=segment.is_damaged)
        self._writing.run(partial(self._writer.attempt, segment.path, remove))


class NoSpool:
    """A disabled spool: it refuses all entries and is always empty."""

    code = "disabled"
    is_open = False
    is_durable = True

    def last_ordinal(self) -> int:
        """Nothing is held."""
        return 0

    def oldest_ms(self) -> int:
        """Return 0."""
        return 0

    def depth(self, _partition: tuple[str, int], /) -> int:
        """Nothing is held."""
        return 0

    async def append(self, _entries: Sequence[Entry], /) -> None:
        """Refuse all entries."""
        raise NotDurableError(self.code)

    async def peek(self, _partition: tuple[str, int], /, *, most: int, most_bytes: int) -> list[Entry]:
        """Nothing is held."""
        del most, most_bytes
        return []

    async def set_aside(self, _partition: tuple[str, int], /, *, code: str) -> bool:
        """Nothing is held."""
        del code
        return False

    def acknowledge(self, _partition: tuple[str, int], _count: int, /) -> None:
        """Nothing is held."""
