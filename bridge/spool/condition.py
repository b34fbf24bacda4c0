"""Whether the spool takes entries, and what it reports of itself."""

from __future__ import annotations

import structlog

from bridge.spool.book import Book
from bridge.spool.metrics import SpoolMetrics
from bridge.spool.writer import segment_bytes

log = structlog.get_logger()

NOT_OPEN = "not_open"
FULL = "full"
STALLED = "stalled"


class Condition:
    """The one word for why no entries are taken.

    Attributes:
        refusal: Why the disk would not take them; empty when it would, be it slowly.
    """

    def __init__(self, metrics: SpoolMetrics, *, capacity_bytes: int, book: Book) -> None:
        """Begin closed."""
        self._available = metrics.spool_available
        self._capacity_bytes = capacity_bytes
        self._book = book
        self._is_closed = False
        self._stall = ""
        self._told = self.refusal = NOT_OPEN
        self._available.set(0)
        metrics.spool_capacity_bytes.set(capacity_bytes)
        metrics.spool_events.set_function(book.events)
        metrics.spool_bytes.set_function(lambda: book.size)
        metrics.spool_oldest_event.set_function(lambda: book.oldest_ms() / 1000)
        metrics.spool_locked_records.set_function(book.locked)
        metrics.spool_unread_segments.set_function(lambda: len(book.unread()))
        metrics.spool_uncopied_ranges.set_function(book.uncopied)

    @property
    def code(self) -> str:
        """Why no entries are taken; empty when they are."""
        return self.refusal or self._stall

    def change(self, refusal: str) -> None:
        """Take another word over."""
        if not self._is_closed:
            self.refusal = refusal
            self._tell()

    def stall(self, code: str) -> None:
        """Be told that the disk takes too long, or, by an empty word, no more."""
        if not self._is_closed:
            self._stall = code
            self._tell()

    def close(self) -> None:
        """Take no entries any more, whatever comes; that is no news."""
        self._is_closed = True
        self.refusal = NOT_OPEN
        self._available.set(0)

    def _tell(self) -> None:
        """Say what has changed, once."""
        code = self.code
        if code == self._told:
            return
        self._told = code
        self._available.set(0 if code else 1)
        if code:
            log.warning("worker.spool_unavailable", code=code)
        else:
            log.info("worker.spool_available")

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes more are within the capacity."""
        return self._book.size + size <= self._capacity_bytes

    def fullness(self) -> str:
        """Return `full` while there is no room to speak of, else nothing."""
        return "" if self.has_room(segment_bytes(self._capacity_bytes)) else FULL
