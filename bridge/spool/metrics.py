"""What the spool reports."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram


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
