"""Hold entries durably on local disk, lane by lane, until they are acknowledged elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from bridge.errors import NotDurableError
from bridge.runtime.hand import Hand
from bridge.runtime.lifecycle import repeat
from bridge.spool.aside import Aside
from bridge.spool.ballast import Ballast
from bridge.spool.book import Book
from bridge.spool.commits import STALLED_S, Call, Commits
from bridge.spool.condition import FULL, Condition
from bridge.spool.disk import Disk
from bridge.spool.finding import Finder
from bridge.spool.format import Entry, Lane, sealed_size
from bridge.spool.keys import KeyRing
from bridge.spool.local_disk import LocalDisk
from bridge.spool.metrics import SpoolMetrics
from bridge.spool.places import Place
from bridge.spool.reading import ORDER_S, Reader
from bridge.spool.removal import Removal
from bridge.spool.tending import Premises
from bridge.spool.unread import Unread
from bridge.spool.writer import Writer, Written, segment_bytes, segment_name

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
        self._book = Book(directory)
        self._condition = Condition(metrics, capacity_bytes=capacity_bytes, book=self._book)
        self._commits = Commits(
            hand=self._writing,
            writer=self._writer,
            book=self._book,
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
            book=self._book,
            metrics=metrics,
            mark_end=self._writer.mark_end,
            is_quiet=lambda lane: self._commits.is_idle or self._book.depth(lane) > 0,
        )
        self._unread = Unread(
            disk=disk,
            hand=self._finding,
            keys=self._keys,
            book=self._book,
            finder=self._finder,
            order_s=order_s,
        )
        self._reader = Reader(
            disk,
            hand=self._reading,
            keys=self._keys,
            book=self._book,
            limit=self._unread.limit,
            leave_out=self._finder.leave_out,
            skip=self._unread.skip,
            order_s=order_s,
        )
        self._removal = Removal(
            hand=self._writing, premises=self._premises, book=self._book, is_idle=lambda: self._commits.is_idle
        )
        self._aside = Aside(
            directory,
            disk=disk,
            hand=self._writing,
            keys=self._keys,
            book=self._book,
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
        keys = self._book.keys()
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
        return self._book.depth(lane)

    def lanes(self) -> list[Lane]:
        """Return the lanes that have any."""
        return self._book.lanes()

    def oldest_ms(self) -> int:
        """Return when the oldest entry was accepted, in Unix milliseconds; 0 without any."""
        return self._book.oldest_ms()

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
        self._removal.acknowledged(self._book.drop(lane, count))

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
        self._condition.change(await self._writing.do(partial(self._premises.prepare, self._book.keys())))

    def _durable(self, entries: Sequence[Entry], written: Written) -> None:
        self._metrics.spool_fsync_duration.observe(written.sync_s)
        segment = self._book.segment(written.segment, segment_name(written.segment))
        self._removal.active = segment.index
        segment.keys.add(written.key_id)
        self._book.resize(segment, written.size)
        for entry, put in zip(entries, written.puts, strict=True):
            self._book.add(entry.lane, Place(segment.index, put.offset, put.length, put.number, entry.at_ms))
            self.last_ordinal = max(self.last_ordinal, entry.ordinal)
