"""Make groups of records durable in segment files: group commit, one write and one fsync for each group."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from bridge.errors import NotDurableError
from bridge.runtime import failpoints
from bridge.runtime.hand import Hand
from bridge.runtime.logging import trail
from bridge.spool.availability import STALLED
from bridge.spool.disk import Disk, code_of
from bridge.spool.index import Index
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.segment import NONCE_BYTES, Entry, Key, end_mark, seal, segment_name

NAME = "ballast"
PROBE = "probe"
# A group of records is not larger, but for a single call that is.
SIZE_BYTES = 1_048_576
# A small disk keeps an eighth of what is free, and is full when even that is less than this.
SIZE_MIN_BYTES = 16_384
SHARE = 8
BLOCK_BYTES = 4096


class Ballast:
    """The file that is given up; the spool takes events only while it is there."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        """Look after the file in `directory`."""
        self._directory = directory
        self._disk = disk

    def ensure(self) -> None:
        """Make the file unless it is there, and prove that the disk takes writes.

        Raises:
            OSError: It does not, or there is no room to speak of.
        """
        if NAME not in self._disk.names(self._directory):
            size = min(SIZE_BYTES, self._disk.free(self._directory) // SHARE)
            if size < SIZE_MIN_BYTES:
                raise OSError(errno.ENOSPC, NAME)
            self._disk.reserve(self._directory / NAME, size - size % BLOCK_BYTES)
        self._probe()

    def release(self) -> bool:
        """Give the space up; False when there is none to give."""
        if NAME not in self._disk.names(self._directory):
            return False
        self._disk.unlink(self._directory / NAME)
        self._disk.sync_directory(self._directory)
        return True

    def _probe(self) -> None:
        path = self._directory / PROBE
        self._disk.unlink(path)
        handle = self._disk.create(path)
        try:
            self._disk.write(handle, bytes(BLOCK_BYTES))
            self._disk.sync(handle)
        finally:
            self._disk.close(handle)
            self._disk.unlink(path)


class Put(NamedTuple):
    """Where a record stands in its segment."""

    offset: int
    length: int
    number: int


class Written(NamedTuple):
    """A durable group.

    Attributes:
        segment: Number of the file that holds all of it.
        puts: One for each entry.
        size: Bytes of that file now.
        key_id: Of what sealed it.
        sync_s: What the disk took.
        code: Why no further group can be taken for now; empty if it can.
    """

    segment: int
    puts: list[Put]
    size: int
    key_id: bytes
    sync_s: float
    code: str = ""


@dataclass(slots=True)
class _Open:
    """The segment that is written to: so many bytes and records of it are durable."""

    number: int
    handle: int
    key: Key
    size: int = 0
    records: int = 0


class Writer:
    """Has at most one segment open, and begins another when it is large enough or cannot be trusted."""

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        keys: KeyRing,
        ballast: Ballast,
        segment_bytes: int,
        now_ns: Callable[[], int],
    ) -> None:
        """Begin another segment at `segment_bytes`; its number is the time, or one more than the last."""
        self._directory = directory
        self._disk = disk
        self._keys = keys
        self._ballast = ballast
        self._segment_bytes = segment_bytes
        self._now_ns = now_ns
        self._open: _Open | None = None
        self._unmarked: list[tuple[Path, bytes]] = []
        self.last_number = 0

    def write(self, entries: Sequence[Entry], *, is_first: bool) -> Written:
        """Make all of them durable, or none; the first after the spool was empty has the keys read again.

        Raises:
            NotDurableError: None of them is; of what could not be cut off again, some may be found after a restart.
        """
        if is_first or self._open is None:
            self._keys.load()
        try:
            return self._write(entries)
        except OSError as exc:
            code = code_of(exc)
        if code == "full" and not self._release():
            raise NotDurableError(code)
        # Once more: in the space of the ballast, or in another file, since this one is not trusted any further.
        try:
            written = self._write(entries)
        except OSError as exc:
            raise NotDurableError(code_of(exc)) from None
        return written._replace(code="full") if code == "full" else written

    def write_apart(self, entry: Entry) -> int:
        """Make an entry durable in a segment of its own, as if it was found late; return the number of that.

        Raises:
            NotDurableError: No key seals.
            OSError: The disk does not take it.
        """
        # Only the newest segment may end in an unfinished write, and this is the newest until the next one.
        self.end_segment()
        self._keys.load()
        if self._keys.sealing is None:
            raise NotDurableError(NO_KEY)
        segment = self._begin(self._keys.sealing)
        record = seal(entry, segment=segment.number, number=0, key=segment.key, nonce=os.urandom(NONCE_BYTES))
        try:
            self._disk.write(segment.handle, record + end_mark(segment.number, 1))
            self._disk.sync(segment.handle)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.unlink(self._directory / segment_name(segment.number))
            raise
        finally:
            self._disk.close(segment.handle)
        return segment.number

    def end_segment(self) -> None:
        """Write no more to the segment that is open."""
        if self._open is not None:
            segment, self._open = self._open, None
            with contextlib.suppress(OSError):
                self._disk.close(segment.handle)
            if segment.records:
                self.mark_end(segment.number, segment.records)

    def mark_end(self, number: int, count: int) -> None:
        """Have a segment say that it gets no more than `count` records."""
        self._unmarked.append((self._directory / segment_name(number), end_mark(number, count)))
        self.mark_ends()

    def mark_ends(self) -> None:
        """Write the marks that are due; what the disk does not take now is left for the next time."""
        for due in tuple(self._unmarked):
            try:
                self._disk.extend(*due)
            except FileNotFoundError:
                pass  # it was empty, and is gone
            except OSError:
                continue
            self._unmarked.remove(due)

    def _release(self) -> bool:
        try:
            return self._ballast.release()
        except OSError:
            return False

    def _write(self, entries: Sequence[Entry]) -> Written:
        segment = self._segment()
        records = [
            seal(entry, segment=segment.number, number=number, key=segment.key, nonce=os.urandom(NONCE_BYTES))
            for number, entry in enumerate(entries, segment.records)
        ]
        try:
            self._disk.write(segment.handle, b"".join(records))
        except OSError as exc:
            self._cut(segment, trusted=code_of(exc) == "full")
            raise
        try:
            failpoints.hit(failpoints.BEFORE_FSYNC)
            began = time.perf_counter()
            self._disk.sync(segment.handle)
            took_s = time.perf_counter() - began
            failpoints.hit(failpoints.AFTER_FSYNC)
        except BaseException:
            # After a failed fsync the kernel calls the pages clean, and a second one would succeed without a write.
            self._cut(segment, trusted=False)
            raise
        puts = []
        for number, record in enumerate(records, segment.records):
            puts.append(Put(segment.size, len(record), number))
            segment.size += len(record)
        segment.records += len(records)
        return Written(segment.number, puts, segment.size, segment.key.id, took_s)

    def _segment(self) -> _Open:
        if self._open is not None and self._open.size >= self._segment_bytes:
            self.end_segment()
            self._keys.load()
        key = self._keys.sealing
        if key is None:
            raise NotDurableError(NO_KEY)
        if self._open is not None and self._open.key.id != key.id:
            self.end_segment()
        if self._open is None:
            self._open = self._begin(key)
        return self._open

    def _begin(self, key: Key) -> _Open:
        number = max(self._now_ns(), self.last_number + 1)
        path = self._directory / segment_name(number)
        handle = self._disk.create(path)
        self.last_number = number
        try:
            self._disk.sync_directory(self._directory)
        except OSError:
            self._disk.close(handle)
            with contextlib.suppress(OSError):
                self._disk.unlink(path)
            raise
        return _Open(number, handle, key)

    def _cut(self, segment: _Open, *, trusted: bool) -> None:
        """Take back what was not made durable; a segment that is not trusted, or cannot be cut, gets nothing more."""
        try:
            self._disk.truncate(segment.handle, segment.size)
        except OSError:
            trusted = False
        if not trusted:
            self.end_segment()
            if not segment.records:
                with contextlib.suppress(OSError):
                    self._disk.unlink(self._directory / segment_name(segment.number))


log = structlog.get_logger()

# A group fits the ballast, so that it can be saved when the disk is full; a larger call goes alone.
GROUP_MAX_BYTES = SIZE_BYTES
# A disk that takes longer for one group is in trouble, and who asks now is better told at once.
STALLED_S = 2.0


class Call(NamedTuple):
    """The entries of one call, durable together."""

    entries: Sequence[Entry]
    size: int
    done: asyncio.Future[None]


class Commits:
    """Calls on their way to the disk, in order."""

    def __init__(
        self,
        *,
        hand: Hand,
        writer: Writer,
        index: Index,
        durable: Callable[[Sequence[Entry], Written], None],
        refused: Callable[[str], None],
        stalled: Callable[[str], None],
        stalled_s: float,
    ) -> None:
        """Tell `durable` of each group before its calls end, and `refused` why one was not written.

        While the disk needs longer than `stalled_s` for a group, `stalled` has a word for it, and in the end none.
        """
        self._hand = hand
        self._writer = writer
        self._index = index
        self._durable = durable
        self._refused = refused
        self._stalled = stalled
        self._stalled_s = stalled_s
        self._calls: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None
        self._group: list[Call] = []
        self.size = 0

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""
        return self._task is None

    def put(self, call: Call) -> None:
        """Take a call; its future ends when it is durable or cannot be made so."""
        self._calls.append(call)
        self.size += call.size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def finish(self, timeout_s: float) -> None:
        """Wait so long for what is on its way; who waits longer is told that it is not durable."""
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

    def _next(self) -> list[Call]:
        """Take what goes together; who gave up waiting before it was begun is left out."""
        group: list[Call] = []
        size = 0
        while self._calls and (not group or size + self._calls[0].size <= GROUP_MAX_BYTES):
            call = self._calls.popleft()
            self.size -= call.size
            if not call.done.done():
                group.append(call)
                size += call.size
        return group

    async def _commit(self, group: list[Call]) -> None:
        entries = [entry for call in group for entry in call.entries]
        watch = asyncio.get_running_loop().call_later(self._stalled_s, self._stalled, STALLED)
        try:
            write = partial(self._writer.write, entries, is_first=not self._index.events())
            written = await self._hand.do(write)
        except NotDurableError as exc:
            self._give_up(group, exc.code)
        except Exception as exc:  # noqa: BLE001 - a bug must not leave anybody waiting, nor the next group unwritten
            log.error("worker.spool_failed", code=type(exc).__name__, where=trail(exc))
            _fail(group, "unexpected")
        else:
            self._durable(entries, written)
            for call in group:
                if not call.done.done():
                    call.done.set_result(None)
            if written.code:
                self._give_up([], written.code)
        finally:
            watch.cancel()
            self._stalled("")

    def _give_up(self, group: list[Call], code: str) -> None:
        """Nothing that waits would fare better."""
        self._refused(code)
        waiting = list(self._calls)
        self._calls.clear()
        self.size = 0
        _fail(group + waiting, code)


def _fail(calls: list[Call], code: str) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_exception(NotDurableError(code))
