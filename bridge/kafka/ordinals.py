"""Ordinals that rise from one life of a process to the next: how far they may have come is noted ahead of their use."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from bridge.runtime.hand import Hand
from bridge.runtime.lifecycle import repeat
from bridge.spool.disk import Disk, LocalDisk

# Noted ahead; at 10,000 events a second more than a minute. It is a second by the clock, and no restart is quicker, so
# that after one the clock leads again.
BLOCK = 1_000_000
LOOK_S = 1.0
# An ordinal has 16 digits until the year 2286; what has more than fit the eight bytes of the spool is no note.
DIGITS_MAX = 18


class Ordinals:
    """Gives ordinals, each above all before it, and as a worker keeps the note of them ahead.

    They begin at the clock in microseconds. Where that was set back, the note decides; without one, as without a
    volume that stays, they may fall.
    """

    def __init__(
        self,
        path: Path,
        *,
        first: int = 0,
        is_usable: Callable[[], bool],
        now_ns: Callable[[], int] = time.time_ns,
        disk: Disk | None = None,
        block: int = BLOCK,
    ) -> None:
        """Begin at the clock, but not below `first`.

        Args:
            path: The note, in a directory that no other process uses.
            first: Above what is known by other means.
            is_usable: Whether the note may be looked at and written.
            now_ns: Unix time.
            disk: The file system.
            block: How many are noted ahead.
        """
        self._path = path
        self._is_usable = is_usable
        self._disk = disk or LocalDisk()
        self._block = block
        self._next = max(now_ns() // 1000, first)
        self._noted: int | None = None

    def __iter__(self) -> Self:
        """Give without an end."""
        return self

    def __next__(self) -> int:
        """Give one."""
        given = self._next
        self._next += 1
        return given

    async def keep(self) -> None:
        """Go above the note of an earlier life, once, and have one ahead; what the disk refuses is tried again."""
        if not self._is_usable() or (self._noted is not None and self._next <= self._noted - self._block // 2):
            return
        hand = Hand("ordinals")
        try:
            with contextlib.suppress(OSError):
                if self._noted is None:
                    self._noted = await hand.do(self._read)
                    self._next = max(self._next, self._noted)
                ahead = self._next + self._block
                await hand.do(lambda: self._write(ahead))
                self._noted = ahead
        finally:
            hand.end()

    async def run(self, stop: asyncio.Event) -> None:
        """Look once in a while until `stop` is set."""
        await repeat(self.keep, LOOK_S, stop)

    def _read(self) -> int:
        try:
            said = self._disk.read(self._path, 0, DIGITS_MAX + 2).strip()
        except FileNotFoundError:
            return 0
        return int(said) if said.isdigit() and len(said) <= DIGITS_MAX else 0

    def _write(self, mark: int) -> None:
        """Replace the note in one step."""
        new = self._path.with_suffix(".new")
        self._disk.unlink(new)
        handle = self._disk.create(new)
        try:
            self._disk.write(handle, b"%d\n" % mark)
            self._disk.sync(handle)
        finally:
            self._disk.close(handle)
        self._disk.rename(new, self._path)
        self._disk.sync_directory(self._path.parent)
