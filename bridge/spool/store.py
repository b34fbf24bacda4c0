"""Hold entries durably on local disk, lane by lane, until they are acknowledged elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path

import structlog

from bridge.errors import NotDurableError
from bridge.runtime import failpoints
from bridge.runtime.hand import Hand
from bridge.runtime.lifecycle import repeat
from bridge.spool.availability import FULL, Condition, SpoolMetrics
from bridge.spool.disk import Disk, LocalDisk, code_of
from bridge.spool.index import Index, Place, Segment
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.reader import ORDER_S, Reader
from bridge.spool.recovery import Finder, Unread, positions_path, remove_orphans, segment_numbers
from bridge.spool.segment import Entry, Lane, positions_frame, sealed_size, segment_bytes, segment_name
from bridge.spool.set_aside import Aside
from bridge.spool.writer import STALLED_S, Ballast, Call, Commits, Writer, Written

log = structlog.get_logger()


class Premises:
    """The directory, from its lock to its unlinks.

    Attributes:
        numbers: The segments that were there when it was taken, oldest first.
    """

    def __init__(self, directory: Path, *, disk: Disk, keys: KeyRing, ballast: Ballast, writer: Writer) -> None:
        """Touch nothing yet."""
        self._directory = directory
        self._disk = disk
        self._keys = keys
        self._ballast = ballast
        self._writer = writer
        self._lock: int | None = None
        self._missing: set[bytes] = set()
        self.numbers: list[int] = []

    def enter(self) -> str:
        """Take the directory for this process and read the keys; return why that is not possible, or nothing."""
        try:
            self._disk.make_directory(self._directory)
            self._lock = self._disk.lock(self._directory)
            self.numbers = segment_numbers(self._disk, self._directory)
            for number in self.numbers:
                self._check(self._directory / segment_name(number))
        except OSError as exc:
            self.leave()
            return code_of(exc)
        self._keys.load()
        remove_orphans(self._disk, self._directory)
        return ""

    def prepare(self, needed: AbstractSet[bytes]) -> str:
        """See that a write would succeed: ballast, disk and keys; return why not, or nothing."""
        try:
            self._ballast.ensure()
        except OSError as exc:
            return code_of(exc)
        self._keys.load()
        if self._keys.current is None and self._keys.is_empty:
            self._make_key()
        return self.check_keys(needed)

    def check_keys(self, needed: AbstractSet[bytes]) -> str:
        """See that there is a file of each key that something needs, or will; return why not, or nothing.

        What is in memory still opens everything, but after a crash only the files do: an answer 202 is not given on
        the strength of a key that a restart would not find.
        """
        self._keys.load()
        current = self._keys.current
        missing = {*needed, *([current.id] if current else [])} - self._keys.present
        if missing - self._missing:
            log.error("worker.spool_key_missing", keys=sorted(key.hex() for key in missing))
        self._missing = missing
        return NO_KEY if missing or current is None else ""

    def remove(self, segment: Path, *, is_active: bool) -> None:
        """Remove a segment in which nothing is left, and then its side file."""
        if is_active:
            self._writer.end_segment()
        with contextlib.suppress(OSError):  # it is found again at the next start, with its positions
            self._disk.unlink(segment)
            self._disk.sync_directory(self._directory)
            self._disk.unlink(positions_path(segment))

    def note(self, segment: Path, number: int, numbers: Sequence[int]) -> None:
        """Write down which records are acknowledged."""
        failpoints.hit(failpoints.BEFORE_POSITIONS)
        with contextlib.suppress(OSError):  # costs duplicates only
            self._disk.append(positions_path(segment), positions_frame(number, numbers))

    def leave(self) -> None:
        """End writing and let another process have the directory."""
        self._writer.end_segment()
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    def _check(self, segment: Path) -> None:
        """Raise when a segment is not ours, so that nothing behind it is delivered before it is."""
        try:
            self._disk.may_read(segment)
        except PermissionError:
            raise
        except OSError:
            return  # what the disk does not give back now is tried again later, and keeps nothing else from being read

    def _make_key(self) -> None:
        """Make the first key, unless something is sealed already: then its key is missing, and that must be seen."""
        with contextlib.suppress(OSError):
            if segment_numbers(self._disk, self._directory):
                return
            if self._keys.directory.is_relative_to(self._directory):
                # A directory elsewhere that is not there was not mounted: a key made there would be lost with the pod.
                self._disk.make_directory(self._keys.directory)
            self._keys.make()
            self._keys.load()


# Positions are written so often at most; what is lost of them in a crash is delivered twice.
POSITIONS_S = 0.05
# The segment that is written to is not removed for less than this each time it happens to be empty.
KEEP_OPEN_BYTES = 1_048_576


class Removal:
    """What happens after an acknowledgement; on the loop's thread, but for the disk.

    Attributes:
        active: Index of the segment that was written to last.
    """

    def __init__(self, *, hand: Hand, premises: Premises, index: Index, is_idle: Callable[[], bool]) -> None:
        """Leave the active segment alone unless `is_idle`: a group on its way may be about to land in it."""
        self._hand = hand
        self._premises = premises
        self._index = index
        self._is_idle = is_idle
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: set[int] = set()
        self.active: int | None = None

    def acknowledged(self, indexes: set[int]) -> None:
        """Note that records of these segments were dropped."""
        for index in indexes:
            segment = self._index.segments[index]
            if index != self.active or segment.size >= KEEP_OPEN_BYTES:
                self._remove_if_empty(segment)
        self._unwritten |= indexes & self._index.segments.keys()
        if self._unwritten and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POSITIONS_S, self.write_positions)

    def remove_empty(self) -> None:
        """Remove every file that holds nothing any more."""
        for segment in list(self._index.segments.values()):
            self._remove_if_empty(segment)

    def write_positions(self) -> None:
        """Have the side files written now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for index in self._unwritten & self._index.segments.keys():
            segment = self._index.segments[index]
            numbers = segment.acknowledged.tolist()
            del segment.acknowledged[:]
            self._hand.do(partial(self._premises.note, segment.path, segment.number, numbers))
        self._unwritten.clear()

    def _remove_if_empty(self, segment: Segment) -> None:
        is_active = segment.index == self.active
        if segment.is_needed or (is_active and not self._is_idle()):
            return
        if is_active:
            self.active = None
        self._index.forget(segment)
        self._hand.do(partial(self._premises.remove, segment.path, is_active=is_active))


# Space that came back is noticed, and a lock, within two of these; a key, too, unless the disk takes longer to read.
RETRY_S = 2.0
CLOSE_S = 5.0


class Spool:
    """The buffer of one process; every method is called on one loop.

    Attributes:
        last_ordinal: Highest one recovered or appended; 0 if none was.
    """

    def __init__(
        self,
        *,
        directory: Path,
        key_dir: Path,
        capacity_bytes: int,
        metrics: SpoolMetrics,
        disk: Disk | None = None,
        now_ns: Callable[[], int] = time.time_ns,
        stalled_s: float = STALLED_S,
        close_s: float = CLOSE_S,
        order_s: float = ORDER_S,
    ) -> None:
        """Touch nothing yet.

        Args:
            directory: Where segments are; of one process at a time.
            key_dir: One file per key, `current` seals.
            capacity_bytes: Segments take up to so much.
            metrics: What is reported.
            disk: The file system.
            now_ns: Unix time; segments are named after it.
            stalled_s: No more is taken while the disk needs longer than this for one group.
            close_s: What is on its way to the disk gets at the end.
            order_s: What the disk does not give back is waited for so long before anything overtakes it.
        """
        disk = disk or LocalDisk()
        self._metrics = metrics
        self._close_s = close_s
        # What a failing disk is asked again may take it long; what waits for delivery does not stand behind that.
        self._writing, self._reading, self._finding = Hand("spool-writer"), Hand("spool-reader"), Hand("spool-finder")
        self._keys = KeyRing(key_dir)
        ballast = Ballast(directory, disk)
        self._writer = Writer(
            directory,
            disk=disk,
            keys=self._keys,
            ballast=ballast,
            segment_bytes=segment_bytes(capacity_bytes),
            now_ns=now_ns,
        )
        self._premises = Premises(directory, disk=disk, keys=self._keys, ballast=ballast, writer=self._writer)
        self._index = Index(directory)
        self._condition = Condition(metrics, capacity_bytes=capacity_bytes, index=self._index)
        self._commits = Commits(
            hand=self._writing,
            writer=self._writer,
            index=self._index,
            durable=self._durable,
            refused=self._condition.change,
            stalled=self._condition.stall,
            stalled_s=stalled_s,
        )
        self._finder = Finder(
            directory,
            disk=disk,
            hand=self._writing,
            reading=self._finding,
            keys=self._keys,
            index=self._index,
            metrics=metrics,
            mark_end=self._writer.mark_end,
            is_quiet=lambda lane: self._commits.is_idle or self._index.depth(lane) > 0,
        )
        self._unread = Unread(
            disk=disk,
            hand=self._finding,
            keys=self._keys,
            index=self._index,
            finder=self._finder,
            order_s=order_s,
        )
        self._reader = Reader(
            disk,
            hand=self._reading,
            keys=self._keys,
            index=self._index,
            limit=self._unread.limit,
            leave_out=self._finder.leave_out,
            skip=self._unread.skip,
            order_s=order_s,
        )
        self._removal = Removal(
            hand=self._writing, premises=self._premises, index=self._index, is_idle=lambda: self._commits.is_idle
        )
        self._aside = Aside(
            directory,
            disk=disk,
            hand=self._writing,
            keys=self._keys,
            index=self._index,
            writer=self._writer,
            reader=self._reader,
            removal=self._removal,
            finder=self._finder,
        )
        metrics.spool_set_aside_records.set_function(lambda: self._aside.count)
        self._found: Callable[[Entry], None] = lambda _entry: None
        self._is_open = self._is_closed = False
        self.last_ordinal = 0

    @property
    def code(self) -> str:
        """Why no entries are taken; empty when they are."""
        return self._condition.code

    @property
    def is_open(self) -> bool:
        """True when it is known what is held, whether more is taken or not."""
        return self._is_open

    async def open(self, found: Callable[[Entry], None]) -> None:
        """Recover what is there; `found` gets every intact entry in the order of the files, also later ones of `run`.

        Whatever the disk holds or refuses is no error: `code` says it.
        """
        self._found = found
        await self._try_to_open()

    async def run(self, stop: asyncio.Event) -> None:
        """Open what could not be opened, take entries and read again when that is possible, until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            group.create_task(repeat(self.tend, RETRY_S, stop))
            group.create_task(repeat(self.read_again, RETRY_S, stop))

    async def tend(self) -> None:
        """Open, take entries again, serve operators and remove what is empty, if that is possible now."""
        if not self._is_open:
            await self._try_to_open()
            return
        keys = self._index.keys()
        if self._condition.refusal:
            code = await self._writing.do(partial(self._premises.prepare, keys))
            self._condition.change(code or self._condition.fullness())
        elif code := await self._writing.do(partial(self._premises.check_keys, keys)):
            self._condition.change(code)
        await self._writing.do(self._writer.mark_ends)
        await self._aside.look(self._found)
        self._removal.remove_empty()

    async def read_again(self) -> None:
        """Enter what could not be read or opened, and copy what is damaged, if that is possible now.

        A failing disk may take minutes to read, and entries can be taken meanwhile.
        """
        if self._is_open:
            await self._unread.try_again(self._found)
            await self._finder.find_locked(self._found)
            await self._finder.copy_again()

    def depth(self, lane: Lane) -> int:
        """Return how many durable entries of a lane are not dropped."""
        return self._index.depth(lane)

    def lanes(self) -> list[Lane]:
        """Return the lanes that have any."""
        return self._index.lanes()

    def oldest_ms(self) -> int:
        """Return when the oldest entry was accepted, in Unix milliseconds; 0 without any."""
        return self._index.oldest_ms()

    def append(self, entries: Sequence[Entry]) -> Awaitable[None]:
        """Take the entries of one call; the order of the calls is the order in the file.

        Returns:
            What ends when all of them are durable, or raises `NotDurableError` when none is.
        """
        if not entries:
            raise ValueError(entries)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = sum(map(sealed_size, entries))
        if not self._condition.code and not self._condition.has_room(self._commits.size + size):
            self._condition.change(FULL)
        if self.code:
            done.set_exception(NotDurableError(self.code))
        else:
            self._commits.put(Call(entries, size, done))
        return done

    async def peek(self, lane: Lane, *, most: int, most_bytes: int) -> list[Entry]:
        """Return the first entries of a lane; none when it is empty or cannot be read now.

        What is found damaged is copied, counted and left out; what the disk does not give back is waited for, and
        in the end left for later.
        """
        return await self._reader.peek(lane, most=most, most_bytes=most_bytes)

    async def set_aside(self, lane: Lane, *, refused: str) -> bool:
        """Set the first entry of a lane aside if an operator has asked for that; return whether it was.

        To be called by what drains the lane, while nothing of it is on its way; `refused` is the code by which Kafka
        has just refused that entry alone, or empty.
        """
        return await self._aside.set_aside(lane, refused=refused)

    def drop(self, lane: Lane, count: int) -> None:
        """Take the first `count` entries of a lane as acknowledged."""
        self._removal.acknowledged(self._index.drop(lane, count))

    async def close(self) -> None:
        """Finish what is on its way to the disk, within a bound, and let another process have the directory."""
        if self._is_closed:
            return
        self._is_closed = True
        self._condition.close()
        await self._commits.finish(self._close_s)
        self._removal.write_positions()
        self._removal.remove_empty()
        self._is_open = False
        await asyncio.wait({self._writing.do(self._premises.leave)}, timeout=self._close_s)
        for hand in (self._writing, self._reading, self._finding):
            hand.end()

    async def _try_to_open(self) -> None:
        code = await self._writing.do(self._premises.enter)
        if code:
            self._condition.change(code)
            return
        await self._finder.recover(self._premises.numbers, self._found)
        await self._unread.begin(self._found)
        self._writer.last_number = max(self._premises.numbers, default=0)
        self.last_ordinal = self._finder.last_ordinal
        self._is_open = True
        self._removal.remove_empty()
        self._condition.change(await self._writing.do(partial(self._premises.prepare, self._index.keys())))

    def _durable(self, entries: Sequence[Entry], written: Written) -> None:
        self._metrics.spool_fsync_duration.observe(written.sync_s)
        segment = self._index.segment(written.segment, segment_name(written.segment))
        self._removal.active = segment.index
        segment.keys.add(written.key_id)
        self._index.resize(segment, written.size)
        for entry, put in zip(entries, written.puts, strict=True):
            self._index.add(entry.lane, Place(segment.index, put.offset, put.length, put.number, entry.at_ms))
            self.last_ordinal = max(self.last_ordinal, entry.ordinal)
