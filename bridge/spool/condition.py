"""Whether the spool takes entries, and what it reports of itself."""

from __future__ import annotations

import structlog

from bridge.spool.book import Book
from bridge.spool.metrics import SpoolMetrics
from bridge.spool.writer import segment_bytes

log = structlog.get_logger()

NOT_OPEN = "not_open"
FULL = "full"


class Condition:
    """The one word for why no entries are taken.

    Attributes:
        code: Empty when they are.
    """

    def __init__(self, metrics: SpoolMetrics, *, capacity_bytes: int, book: Book) -> None:
        """Begin closed."""
        self._available = metrics.spool_available
        self._capacity_bytes = capacity_bytes
        self._book = book
        self._is_closed = False
        self.code = NOT_OPEN
        self._available.set(0)
        metrics.spool_capacity_bytes.set(capacity_bytes)
        metrics.spool_events.set_function(book.events)
        metrics.spool_bytes.set_function(lambda: book.size)
        metrics.spool_oldest_event.set_function(lambda: book.oldest_ms() / 1000)
        metrics.spool_locked_records.set_function(book.locked)

    def change(self, code: str) -> None:
        """Take another word over, and say so once."""
        if code == self.code or self._is_closed:
            return
        self.code = code
        self._available.set(0 if code else 1)
        if code:
            log.warning("worker.spool_unavailable", code=code)
        else:
            log.info("worker.spool_available")

    def close(self) -> None:
        """Take no entries any more, whatever comes; that is no news."""
        self._is_closed = True
        self.code = NOT_OPEN
        self._available.set(0)

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes more are within the capacity."""
        return self._book.size + size <= self._capacity_bytes

    def fullness(self) -> str:
        """Return `full` while there is no room to speak of, else nothing."""
        return "" if self.has_room(segment_bytes(self._capacity_bytes)) else FULL
