"""Whether the spool accepts entries, and its metrics."""

from pathlib import Path

from bridge.runtime.logging import log
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.disk import FULL
from bridge.spool.index import Index, Segment
from bridge.spool.segment import segment_bytes

NOT_OPEN = "not_open"
STALLED = "stalled"
# Bytes of one group commit, enough for a thousand records; a larger call is written alone.
GROUP_MAX_BYTES = 1_048_576


class Availability:
    """Whether entries are accepted, and why not; initially closed."""

    def __init__(self, metrics: IngressMetrics, *, directory: Path, capacity_bytes: int, index: Index) -> None:
        self._corrupt = metrics.spool_corrupt_records
        self._directory = directory
        self._capacity_bytes = capacity_bytes
        self._index = index
        self._is_closed = False
        self._logged = self.refusal = NOT_OPEN  # why a write would fail; empty if it would succeed
        self.is_stalled = False  # the current group commit takes too long
        self.disk_free_bytes = capacity_bytes  # free bytes of the disk at the last check
        self.damaged = 0  # number of damaged records found
        metrics.spool_available.set_function(lambda: not self.code)
        metrics.spool_capacity_bytes.set(capacity_bytes)
        metrics.spool_free_bytes.set_function(self.free_bytes)
        metrics.spool_events.set_function(index.events)
        metrics.spool_bytes.set_function(lambda: index.size)
        metrics.spool_oldest_event.set_function(lambda: index.oldest_ms() / 1000)
        metrics.spool_locked_records.set_function(index.locked)
        metrics.spool_unread_segments.set_function(index.unread)

    @property
    def code(self) -> str:
        """Why entries are refused; empty if they are accepted."""
        return self.refusal or (STALLED if self.is_stalled else "")

    def refuse(self, code: str) -> None:
        """Refuse entries for this reason; an empty one accepts them again."""
        if not self._is_closed:
            self.refusal = code
            self._report()

    def stall(self, *, is_stalled: bool) -> None:
        """Note whether the disk takes too long."""
        if not self._is_closed:
            self.is_stalled = is_stalled
            self._report()

    def close(self) -> None:
        """Refuse entries because of shutdown, without a warning."""
        self._is_closed = True
        self.refusal = NOT_OPEN

    def has_room(self, size: int) -> bool:
        """Return whether `size` more bytes fit into the capacity."""
        return self._index.size + size <= self._capacity_bytes

    def fullness(self) -> str:
        """Return `FULL` unless capacity remains for another segment and disk space for a group; else empty."""
        is_room = self.has_room(segment_bytes(self._capacity_bytes)) and self.disk_free_bytes >= GROUP_MAX_BYTES
        return "" if is_room else FULL

    def free_bytes(self) -> int:
        """Return the bytes left by capacity and disk."""
        return max(0, min(self._capacity_bytes - self._index.size, self.disk_free_bytes))

    def note_damage(self, segment: Segment, records: int) -> None:
        """Count damaged records; their file is kept."""
        segment.is_damaged = True
        self.damaged += records
        self._corrupt.inc(records)
        log.error("worker.spool_damaged", segment=segment.path.stem, records=records)

    def _report(self) -> None:
        code = self.code
        if code == self._logged:
            return
        self._logged = code
        if code:
            log.warning("worker.spool_unavailable", code=code, path=str(self._directory))
        else:
            log.info("worker.spool_available", path=str(self._directory))
