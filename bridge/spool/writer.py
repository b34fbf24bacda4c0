"""Append groups of records to segment files; runs on a thread of its own, one call at a time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bridge.errors import NotDurableError
from bridge.runtime import failpoints
from bridge.spool.ballast import Ballast
from bridge.spool.disk import Disk, code_of
from bridge.spool.format import NONCE_BYTES, Entry, Key, end_mark, seal
from bridge.spool.keys import NO_KEY, KeyRing

SUFFIX = ".segment"
# Large enough that few files are made, small enough that space comes back while a long spool is drained.
SEGMENT_BYTES = 8_388_608
SEGMENTS_MIN = 16
SEGMENT_MIN_BYTES = 65_536


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


def segment_name(number: int) -> str:
    """Return the name of a segment's file; by name they are in the order of their numbers."""
    return f"{number:016x}{SUFFIX}"


def segment_bytes(capacity_bytes: int) -> int:
    """Return at what size another segment is begun."""
    return max(SEGMENT_MIN_BYTES, min(SEGMENT_BYTES, capacity_bytes // SEGMENTS_MIN))


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
