"""Append entries to segment files, durably: one write and one fsync for a group of calls.

`GroupCommit` runs on the event loop: entries appended while one group is being written form the next group.
`SegmentWriter` works on the spool's writing thread: it has at most one segment open, and begins another when that is
large enough, when the key changes, or after a write failed. After a failed fsync the kernel marks the pages clean, and
a second fsync of the same file would succeed without a write. So a group whose fsync fails is truncated and written
again, to another file.
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
from bridge.spool.segment import NONCE_BYTES, Entry, Key, encrypt, end_mark, segment_name

# Seconds; a disk that takes longer for one group is failing, and further calls are refused at once.
STALLED_S = 2.0


class Written(NamedTuple):
    """A group that was made durable."""

    segment: int  # number of its segment
    offsets: list[int]  # offsets of the records, and the end of the last one
    first: int  # sequence number of the first record
    key_id: bytes  # id of the key that encrypted it
    sync_s: float  # seconds that the disk took


@dataclass(slots=True)
class _Open:
    """The segment being written; `size` and `records` count durable records."""

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
    last_number: int = 0  # number of the segment begun last; the next gets the time or, if higher, this plus one
    _open: _Open | None = None
    failed: dict[Callable[[], None], Path] = field(default_factory=dict)  # changes that the disk failed

    def write(self, entries: Sequence[Entry], *, is_first: bool) -> Written:
        """Make all entries durable, or none; `is_first` (after the spool was empty) reads the keys again.

        After `NotDurableError`, entries that could not be truncated may be found after a restart.
        """
        if is_first or self._open is None:
            self.keys.load()
        try:
            return self._write(entries)
        except OSError as exc:
            if code_of(exc) == FULL:
                raise NotDurableError(FULL) from None
        # Once more, in another file, since this one is no longer trusted.
        try:
            return self._write(entries)
        except OSError as exc:
            raise NotDurableError(code_of(exc)) from None

    @property
    def is_begun(self) -> bool:
        """Whether a segment is open; it accepts records even if its directory was removed."""
        return self._open is not None

    def end_segment(self) -> None:
        """Finish the open segment; remove it if empty, since a start would treat it as truncated."""
        if self._open is not None:
            segment, self._open = self._open, None
            path = self.directory / segment_name(segment.number)
            with contextlib.suppress(OSError):
                self.disk.close(segment.handle)
            if segment.records:
                self.mark_end(segment.number, segment.records, segment.key)
            else:
                self.attempt(path, partial(self.disk.unlink, path))

    def mark_end(self, number: int, count: int, key: Key) -> None:
        """Append the end mark to a segment of `count` records."""
        path = self.directory / segment_name(number)
        self.attempt(path, partial(self.disk.extend, path, end_mark(number, count, key)))

    def attempt(self, path: Path, change: Callable[[], None]) -> None:
        """Change a segment, unless it is gone; if the disk fails, keep the change for `retry`, and log the first."""
        try:
            with contextlib.suppress(FileNotFoundError):
                change()
            self.failed.pop(change, None)
        except OSError as exc:
            if not self.failed:
                log.warning("worker.spool_failing", segment=path.stem, code=code_of(exc))
            self.failed[change] = path

    def retry(self) -> None:
        """Make the failed changes again."""
        for change, path in tuple(self.failed.items()):
            self.attempt(path, change)

    def _write(self, entries: Sequence[Entry]) -> Written:
        segment = self._segment()
        records = [
            encrypt(entry, segment=segment.number, number=number, key=segment.key, nonce=os.urandom(NONCE_BYTES))
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
        key = self.keys.encrypting
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
        """Truncate records that are not durable; an untrusted segment, or one that keeps them, is not used again."""
        try:
            self.disk.truncate(segment.handle, segment.size)
        except OSError:
            trusted = False
        if not trusted:
            self.end_segment()


class _Waiting(NamedTuple):
    """The entries of one call, made durable together."""

    entries: Sequence[Entry]
    size: int
    done: asyncio.Future[None]


@dataclass(kw_only=True, eq=False, repr=False)
class GroupCommit:
    """Groups calls to be written, in order; runs on the event loop's thread."""

    thread: IOThread
    writer: SegmentWriter
    index: Index
    availability: Availability
    metrics: IngressMetrics
    stalled_s: float
    size: int = 0  # bytes of calls that are not in a group yet
    _calls: deque[_Waiting] = field(default_factory=deque)
    _task: asyncio.Task[None] | None = None
    _group: list[_Waiting] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """True if nothing is being written or waiting."""
        return self._task is None

    def put(self, entries: Sequence[Entry], size: int) -> asyncio.Future[None]:
        """Queue the entries of a call; the future ends when all are durable, or raises `NotDurableError`."""
        loop = asyncio.get_running_loop()
        call = _Waiting(entries, size, loop.create_future())
        self._calls.append(call)
        self.size += size
        if self._task is None:
            self._task = loop.create_task(self._run())
        return call.done

    async def finish(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for queued entries; later entries count as not durable."""
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
        """Take the calls of the next group, without cancelled ones."""
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
        except Exception as exc:  # noqa: BLE001 - a bug must not block callers or the next group
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
        """Fail all waiting calls: they would fail in the same way."""
        self.availability.refuse(code)
        waiting = list(self._calls)
        self._calls.clear()
        self.size = 0
        _fail(group + waiting, code)


def _fail(calls: Sequence[_Waiting], code: str) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_exception(NotDurableError(code))
