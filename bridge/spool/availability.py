"""Whether the spool takes entries, and what it reports of itself."""

from __future__ import annotations

from typing import Protocol

import structlog
from prometheus_client import Counter, Gauge, Histogram

from bridge.spool.index import Index
from bridge.spool.segment import segment_bytes

log = structlog.get_logger()


class SpoolMetrics(Protocol):
    """Attributes are named as the metrics are, without prefix and suffix."""

    spool_available: Gauge
    spool_events: Gauge
    spool_bytes: Gauge
    spool_capacity_bytes: Gauge
    spool_oldest_event: Gauge
    spool_locked_records: Gauge
    spool_unread_segments: Gauge
    spool_uncopied_ranges: Gauge
    spool_set_aside_records: Gauge
    spool_corrupt_records: Counter
    spool_torn_tails: Counter
    spool_fsync_duration: Histogram


NOT_OPEN = "not_open"
FULL = "full"
STALLED = "stalled"


class Condition:
    """The one word for why no entries are taken.

    Attributes:
        refusal: Why the disk would not take them; empty when it would, be it slowly.
    """

    def __init__(self, metrics: SpoolMetrics, *, capacity_bytes: int, index: Index) -> None:
        """Begin closed."""
        self._available = metrics.spool_available
        self._capacity_bytes = capacity_bytes
        self._index = index
        self._is_closed = False
        self._stall = ""
        self._told = self.refusal = NOT_OPEN
        self._available.set(0)
        metrics.spool_capacity_bytes.set(capacity_bytes)
        metrics.spool_events.set_function(index.events)
        metrics.spool_bytes.set_function(lambda: index.size)
        metrics.spool_oldest_event.set_function(lambda: index.oldest_ms() / 1000)
        metrics.spool_locked_records.set_function(index.locked)
        metrics.spool_unread_segments.set_function(lambda: len(index.unread()))
        metrics.spool_uncopied_ranges.set_function(index.uncopied)

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
        return self._index.size + size <= self._capacity_bytes

    def fullness(self) -> str:
        """Return `full` while there is no room to speak of, else nothing."""
        return "" if self.has_room(segment_bytes(self._capacity_bytes)) else FULL
