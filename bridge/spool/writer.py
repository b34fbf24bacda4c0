"""Append entries to segment files, durably: one write and one fsync for a group of calls.

`GroupCommit` runs on the loop: what is appended while one group is on its way to the disk makes the next.
`SegmentWriter` does the work on the spool's writing thread: it has at most one segment open, and begins another when it
is large enough, when the key changes, or when it cannot be trusted. After a failed fsync the kernel marks the pages
clean, and a second fsync of the same file would succeed without a write. So a group whose fsync fails is cut off and
written once more, to another file.
"""

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bridge.errors import NotDurableError
from bridge.runtime.failpoints import hit
from bridge.runtime.io_thread import IOThread
from bridge.runtime.logging import log, trail
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.availability import GROUP_MAX_BYTES, STALLED, Availability
from bridge.spool.disk import FULL, Disk, code_of
from bridge.spool.index import Index, Location
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.segment import NONCE_BYTES, Entry, Key, SpoolPartition, end_mark, seal, segment_name

# A disk that takes longer for one group is in trouble, and further calls are better refused at once.
STALLED_S = 2.0


class Written(NamedTuple):
    """A durable group."""

    segment: int  # number of the file that holds all of it
    offsets: list[int]  # where each entry's record stands, and where the last one ends
    first: int  # running number of the first
    key_id: bytes  # of what sealed it
    sync_s: float  # what the disk took


@dataclass(slots=True)
class _Open:
    """The segment that is written to; `size` and `records` count what is durable."""

    number: int
    handle: int
    key: Key
    size: int = 0
    records: int = 0


@dataclass(kw_only=True, eq=False, repr=False)
class SegmentWriter:
    """Writes segments, on the writing thread."""

    directory: Path
    disk: Disk
    keys: KeyRing
    segment_bytes: int
    now_ns: Callable[[], int]
    last_number: int = 0  # of the segment begun last; the next gets the time, or one more than this
    _open: _Open | None = None
    _unmarked: list[tuple[Path, bytes]] = field(default_factory=list)

    def write(self, entries: Sequence[Entry], *, is_first: bool) -> Written:
        """Make all of them durable, or none; the first after the spool was empty has the keys read again.

        After `NotDurableError`, some that could not be cut off again may be found after a restart.
        """
        if is_first or self._open is None:
            self.keys.load()
        try:
            return self._write(entries)
        except OSError as exc:
            code = code_of(exc)
        if code == FULL:
            raise NotDurableError(code)
        # Once more, in another file, since this one is not trusted any further.
        try:
            return self._write(entries)
        except OSError as exc:
            raise NotDurableError(code_of(exc)) from None

    @property
    def is_begun(self) -> bool:
        """Whether a segment is open; it takes records whatever becomes of its directory."""
        return self._open is not None

    def end_segment(self) -> None:
        """Write no more to the segment that is open; one without records goes, or a start would take it for cut off."""
        if self._open is not None:
            segment, self._open = self._open, None
            with contextlib.suppress(OSError):
                self.disk.close(segment.handle)
            if segment.records:
                self.mark_end(segment.number, segment.records, segment.key)
                return
            with contextlib.suppress(OSError):
                self.disk.unlink(self.directory / segment_name(segment.number))

    def mark_end(self, number: int, count: int, key: Key) -> None:
        """Append the end mark to a segment of `count` records."""
        self._unmarked.append((self.directory / segment_name(number), end_mark(number, count, key)))
        self.mark_ends()

    def mark_ends(self) -> None:
        """Append the end marks that are due; those that fail are retried next time."""
        for due in tuple(self._unmarked):
            try:
                self.disk.extend(*due)
            except FileNotFoundError:
                pass  # it was empty, and is gone
            except OSError:
                continue
            self._unmarked.remove(due)

    def _write(self, entries: Sequence[Entry]) -> Written:
        segment = self._segment()
        records = [
            seal(entry, segment=segment.number, number=number, key=segment.key, nonce=os.urandom(NONCE_BYTES))
            for number, entry in enumerate(entries, segment.records)
        ]
        try:
            self.disk.write(segment.handle, b"".join(records))
        except OSError as exc:
            self._cut(segment, trusted=code_of(exc) == FULL)
            raise
        try:
            hit("before_fsync")
            began = time.perf_counter()
            self.disk.sync(segment.handle)
            took_s = time.perf_counter() - began
            hit("after_fsync")
        except BaseException:
            self._cut(segment, trusted=False)
            raise
        offsets, first = [segment.size], segment.records
        for record in records:
            offsets.append(offsets[-1] + len(record))
        segment.size = offsets[-1]
        segment.records += len(records)
        return Written(segment.number, offsets, first, segment.key.id, took_s)

    def _segment(self) -> _Open:
        if self._open is not None and self._open.size >= self.segment_bytes:
            self.end_segment()
            self.keys.load()
        key = self.keys.sealing
        if key is None:
            raise NotDurableError(NO_KEY)
        if self._open is not None and self._open.key.id != key.id:
            self.end_segment()
        if self._open is None:
            self._open = self._begin(key)
        return self._open

    def _begin(self, key: Key) -> _Open:
        number = max(self.now_ns(), self.last_number + 1)
        path = self.directory / segment_name(number)
        handle = self.disk.create(path)
        self.last_number = number
        try:
            self.disk.sync_directory(self.directory)
        except OSError:
            self.disk.close(handle)
            with contextlib.suppress(OSError):
                self.disk.unlink(path)
            raise
        return _Open(number, handle, key)

    def _cut(self, segment: _Open, *, trusted: bool) -> None:
        """Take back what was not made durable; a segment that is not trusted, or cannot be cut, gets nothing more."""
        try:
            self.disk.truncate(segment.handle, segment.size)
        except OSError:
            trusted = False
        if not trusted:
            self.end_segment()


class _Waiting(NamedTuple):
    """The entries of one call, durable together."""

    entries: Sequence[Entry]
    size: int
    done: asyncio.Future[None]


@dataclass(kw_only=True, eq=False, repr=False)
class GroupCommit:
    """Calls on their way to the disk, in order; on the loop's thread."""

    thread: IOThread
    writer: SegmentWriter
    index: Index
    availability: Availability
    metrics: IngressMetrics
    stalled_s: float
    size: int = 0  # bytes of the calls that are not in a group yet
    _calls: deque[_Waiting] = field(default_factory=deque)
    _task: asyncio.Task[None] | None = None
    _group: list[_Waiting] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""
        return self._task is None

    def carries(self, partition: SpoolPartition) -> bool:
        """Return whether an entry of a partition is being written."""
        return any(entry.partition == partition for call in (*self._group, *self._calls) for entry in call.entries)

    def put(self, entries: Sequence[Entry], size: int) -> asyncio.Future[None]:
        """Take the entries of a call; the future ends when all are durable, or raises `NotDurableError`."""
        loop = asyncio.get_running_loop()
        call = _Waiting(entries, size, loop.create_future())
        self._calls.append(call)
        self.size += size
        if self._task is None:
            self._task = loop.create_task(self._run())
        return call.done

    async def finish(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for what is on its way; what takes longer is not durable as far as is known."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            self._give_up(self._group, STALLED)

    async def _run(self) -> None:
        try:
            while group := self._next():
                self._group = group
                await self._commit(group)
        finally:
            self._group = []
            self._task = None

    def _next(self) -> list[_Waiting]:
        """Take the calls of the next group; those cancelled before are left out."""
        group: list[_Waiting] = []
        size = 0
        while self._calls and (not group or size + self._calls[0].size <= GROUP_MAX_BYTES):
            call = self._calls.popleft()
            self.size -= call.size
            if not call.done.done():
                group.append(call)
                size += call.size
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        entries = [entry for call in group for entry in call.entries]
        stall = partial(self.availability.stall, is_stalled=True)
        watch = asyncio.get_running_loop().call_later(self.stalled_s, stall)
        try:
            written = await self.thread.run(partial(self.writer.write, entries, is_first=not self.index.events()))
        except NotDurableError as exc:
            self._give_up(group, exc.code)
        except Exception as exc:  # noqa: BLE001 - a bug must not leave anybody waiting, nor the next group unwritten
            log.error("worker.spool_failed", code=type(exc).__name__, where=trail(exc))
            _fail(group, "unexpected")
        else:
            self._add(entries, written)
            for call in group:
                if not call.done.done():
                    call.done.set_result(None)
        finally:
            watch.cancel()
            self.availability.stall(is_stalled=False)

    def _add(self, entries: Sequence[Entry], written: Written) -> None:
        self.metrics.spool_fsync_duration.observe(written.sync_s)
        segment = self.index.segment(written.segment)
        segment.keys.add(written.key_id)
        self.index.resize(segment, written.offsets[-1])
        self.index.active = segment.index
        bounds = zip(written.offsets, written.offsets[1:], strict=False)
        for number, (entry, (start, end)) in enumerate(zip(entries, bounds, strict=True), written.first):
            self.index.add(entry.partition, Location(segment.index, start, end - start, number, entry.at_ms))
            self.index.last_ordinal = max(self.index.last_ordinal, entry.ordinal)

    def _give_up(self, group: list[_Waiting], code: str) -> None:
        """Refuse all waiting calls: they would fail in the same way."""
        self.availability.refuse(code)
        waiting = list(self._calls)
        self._calls.clear()
        self.size = 0
        _fail(group + waiting, code)


def _fail(calls: Sequence[_Waiting], code: str) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_exception(NotDurableError(code))
