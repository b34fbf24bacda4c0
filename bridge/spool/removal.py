"""Let go of what is acknowledged: note the positions, remove the files that hold nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from bridge.runtime.hand import Hand
from bridge.spool.book import Book
from bridge.spool.places import Segment
from bridge.spool.tending import Premises

# Positions are written so often at most; what is lost of them in a crash is delivered twice.
POSITIONS_S = 0.05
# The segment that is written to is not removed for less than this each time it happens to be empty.
KEEP_OPEN_BYTES = 1_048_576


class Removal:
    """What happens after an acknowledgement; on the loop's thread, but for the disk.

    Attributes:
        active: Index of the segment that was written to last.
    """

    def __init__(self, *, hand: Hand, premises: Premises, book: Book, is_idle: Callable[[], bool]) -> None:
        """Leave the active segment alone unless `is_idle`: a group on its way may be about to land in it."""
        self._hand = hand
        self._premises = premises
        self._book = book
        self._is_idle = is_idle
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: set[int] = set()
        self.active: int | None = None

    def acknowledged(self, indexes: set[int]) -> None:
        """Note that records of these segments were dropped."""
        for index in indexes:
            segment = self._book.segments[index]
            if index != self.active or segment.size >= KEEP_OPEN_BYTES:
                self._remove_if_empty(segment)
        self._unwritten |= indexes & self._book.segments.keys()
        if self._unwritten and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(POSITIONS_S, self.write_positions)

    def remove_empty(self) -> None:
        """Remove every file that holds nothing any more."""
        for segment in list(self._book.segments.values()):
            self._remove_if_empty(segment)

    def write_positions(self) -> None:
        """Have the side files written now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for index in self._unwritten & self._book.segments.keys():
            segment = self._book.segments[index]
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
        self._book.forget(segment)
        self._hand.do(partial(self._premises.remove, segment.path, is_active=is_active))
