"""Says what became of records: in metrics always, in the log once per record that needs eyes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import structlog

from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.logging import trail
from consumers.runtime.failure import Failure, FailureClass, Retry
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.sorting import Skip, Sorted

log = structlog.get_logger()

Outcome = Literal["applied", "duplicate", "stale", "skipped", "parked", "retry"]
"""`duplicate`: its event was settled before. `stale`: the record itself was, in an earlier life. `skipped`: of a type
that this release does not know, and the consumer says `skip`. `retry` is no end."""


class Tally:
    """Counts for one consumer; a number of records at a time where there may be thousands a second."""

    def __init__(self, metrics: ConsumerMetrics, *, group: str, topics: Iterable[str]) -> None:
        """Count into `metrics`; the series are there from the start, so that a rate sees the first of each."""
        self._metrics = metrics
        self._group = group
        service = metrics.service
        self._records: dict[tuple[str, Outcome], Any] = {}
        self._last: dict[str, Any] = {}
        self._ages = [
            (metrics.freshness.labels(service, each), metrics.freshness_negative.labels(service, each))
            for each in ("kafka_to_applied", "end_to_end")
        ]
        for topic in topics:
            for outcome in get_args(Outcome):
                self.count(topic, outcome, 0)
        for each in get_args(FailureClass):
            metrics.park.labels(service, each)
        metrics.bugs.labels(service)
        metrics.fence_rejected.labels(service)
        self._aloud = bool(log.is_enabled_for(logging.DEBUG)) if hasattr(log, "is_enabled_for") else False

    def count(self, topic: str, outcome: Outcome, records: int = 1) -> None:
        """Count records of a topic."""
        counter = self._records.get((topic, outcome))
        if counter is None:
            counter = self._metrics.consumer_records.labels(self._metrics.service, topic, outcome)
            self._records[topic, outcome] = counter
        counter.inc(records)

    def passed_over(self, topic: str, skips: Iterable[object]) -> None:
        """Count, among what is settled unseen, what the consumer would have wanted if this release knew its type."""
        unknown = sum(each is Skip.UNKNOWN for each in skips)
        if unknown:
            self.count(topic, "skipped", unknown)

    def applied(self, records: Sequence[Sorted]) -> None:
        """Count records of one topic whose effects are there, and how old they are."""
        if not records:
            return
        now = time.time()
        topic = records[0].record.topic
        self.count(topic, "applied", len(records))
        last = self._last.get(topic)
        if last is None:
            last = self._last[topic] = self._metrics.consumer_last_applied.labels(self._metrics.service, topic)
        last.set(now)
        (written, written_future), (whole, whole_future) = self._ages
        _observe(written, written_future, (now - each.record.timestamp_ms / 1000 for each in records))
        _observe(whole, whole_future, (now - each.event.occurred_at.timestamp() for each in records))
        if self._aloud:
            for each in records:
                log.debug("record.applied", event_type=each.event.type, **self._where(each.record))

    def conflicted(self, event: Sorted) -> None:
        """Count an id that came with another body; the source is one of ours, or it is no name of a label."""
        self._metrics.id_conflicts.labels(self._metrics.service, event.inbox.source).inc()

    def retried(self, record: ConsumedRecord, retry: Retry, *, attempt: int) -> None:
        """Tell of a record that is tried again, unless it is the sink's fault: the circuit tells of that."""
        if retry.failure.cls != "systemic":
            self.count(record.topic, "retry")
            log.warning("record.retried", code=retry.failure.code, attempts=attempt, **self._where(record))

    def retried_batch(self, topic: str, records: int, *, code: str) -> None:
        """Tell of records that are tried again together, none of them being at fault."""
        self.count(topic, "retry", records)
        log.warning("worker.batch_retried", code=code, records=records, topic=topic, group=self._group)

    def parked(self, record: ConsumedRecord, failure: Failure, *, attempts: int) -> None:
        """Tell of a key set aside, by the record that did it."""
        self.count(record.topic, "parked")
        self._metrics.park.labels(self._metrics.service, failure.cls).inc()
        log.error(
            "record.parked", code=failure.code, attempts=attempts, **{"class": failure.cls}, **self._where(record)
        )

    def appended(self, topic: str, records: int = 1) -> None:
        """Count records that followed their key."""
        self.count(topic, "parked", records)

    def bug(self, exc: BaseException) -> None:
        """Tell where a handler's exception came from that is none of our tree: places only."""
        self._metrics.bugs.labels(self._metrics.service).inc()
        log.error("worker.handler_bug", where=trail(exc))

    def fenced(self) -> None:
        """Count a transaction that another member's claim has made void."""
        self._metrics.fence_rejected.labels(self._metrics.service).inc()

    def _where(self, record: ConsumedRecord) -> dict[str, Any]:
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "event_id": record.header("ce_id"),
            "group": self._group,
        }


def _observe(histogram: Any, future: Any, ages_s: Iterable[float]) -> None:
    for age_s in ages_s:
        if age_s < 0:
            future.inc()
        histogram.observe(max(0.0, age_s))
