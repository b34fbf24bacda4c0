"""All metrics of a consumer process, with closed label sets; one registry per process.

`Tally` counts outcomes of records, and logs those that need attention.
"""

import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

from prometheus_client import CollectorRegistry, Gauge

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.runtime.logging import log, trail
from bridge.runtime.metrics import DURATION_BUCKETS, FRESHNESS_BUCKETS, NAMESPACE, Metrics, counter, gauge, histogram
from bridge.runtime.tracing import Tracing
from consumers.runtime.decoding import Decoded, Skip
from consumers.runtime.retry_policy import Failure, FailureClass

RecordOutcome = Literal["applied", "duplicate", "stale", "skipped", "parked", "retry"]
"""`duplicate`: its event was settled before. `stale`: the record was, by an earlier owner. `skipped`: of a type unknown
to this release. `retry` is not final.
"""
# Seconds between two lines about a failing sink.
SINK_LOG_S = 60.0


class ConsumerMetrics(Metrics):
    """The metrics of `drx-consumer run`, labelled with the group as `service`."""

    consumer_records = counter("Records, by outcome", "topic", "outcome")
    consumer_last_applied = gauge(
        "Time at which a record of the topic was last applied", "topic", suffix="_timestamp_seconds"
    )
    freshness = histogram("Age of an event when it reached a stage", FRESHNESS_BUCKETS, "segment")
    freshness_negative = counter("Events whose time is in the future", "segment")
    consumer_bugs = counter("Exceptions of handlers that are not a BridgeError")
    id_conflicts = counter("Events whose id was used before with another body", "source")
    circuit_state = gauge("1 for the current state of the circuit breaker", "state")
    consumer_sink_failures = counter("Calls that failed because the sink is unavailable")

    consumer_lag_records = gauge("Records not settled yet", "topic", "partition")
    consumer_lag_seconds = gauge("Age of the oldest record not settled", "topic", "partition")
    consumer_settled_offset = gauge("Offset below which everything is settled", "topic", "partition")
    consumer_rebalances = counter("Partitions assigned, revoked or lost", "kind")
    consumer_assigned_partitions = gauge("Partitions assigned to this member")
    consumer_paused_partitions = gauge("Partitions whose fetching is paused")
    consumer_stopped_partitions = gauge("Partitions stopped until an operator acts", "code")
    commit = histogram("Duration of an offset commit to Kafka", DURATION_BUCKETS)
    fence_rejected = counter(
        "Transactions rejected because another member had claimed the partition, or the database had lost commits"
    )
    client_rebuilds = counter("Kafka clients that failed and were replaced")
    consumer_start = gauge("Start of the process, in Unix time", suffix="_timestamp_seconds")

    inflight_records = gauge("Records read and not settled")
    oldest_inflight_age = gauge("Age of the oldest record that was read and not settled", suffix="_seconds")
    parked_keys = gauge("Parked keys")
    parked_events = gauge("Events of parked keys")
    parked_oldest_age = gauge("Age of the oldest parked key", suffix="_seconds")
    park = counter("Keys parked, by class of failure", "class")
    park_breaker_open = gauge("1 while the park limit stops the consumer")
    parking_full_partitions = gauge("Partitions stopped because no more records may be parked")
    outbox_records = gauge("Records published by handlers and not yet in Kafka")
    outbox_oldest_age = gauge("Age of the oldest record in the outbox; 0 if it is empty", suffix="_seconds")
    outbox_published = counter("Records of the outbox that were written to Kafka", "topic")

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        super().__init__(registry, service=service)
        self.service = service
        self.consumer_start.set(time.time())
        # No series until there is a member, so that `ConsumerStuck` fires for a process that waits at startup.
        text, labels = "Time since the last poll returned", ("service",)
        self.poll_age = Gauge("poll_age_seconds", text, labels, namespace=NAMESPACE, registry=registry)


class Tally:
    """Counts for one consumer; several records at a time, since there may be thousands a second."""

    def __init__(
        self, metrics: ConsumerMetrics, *, group: str, topics: Iterable[str], tracing: Tracing | None = None
    ) -> None:
        """All series exist from the start, so that `rate` sees the first increment."""
        self._metrics = metrics
        self._group = group
        self._tracing = tracing
        self._sink_due = -math.inf
        service = metrics.service
        self._records: dict[tuple[str, RecordOutcome], Any] = {}
        self._last: dict[str, Any] = {}
        self._ages = [
            (metrics.freshness.labels(service, each), metrics.freshness_negative.labels(service, each))
            for each in ("kafka_to_applied", "end_to_end")
        ]
        for topic in topics:
            for outcome in get_args(RecordOutcome):
                self.count(topic, outcome, 0)
        for each in get_args(FailureClass):
            metrics.park.labels(service, each)

    def count(self, topic: str, outcome: RecordOutcome, records: int = 1) -> None:
        """Count records of a topic."""
        counter = self._records.get((topic, outcome))
        if counter is None:
            counter = self._metrics.consumer_records.labels(self._metrics.service, topic, outcome)
            self._records[topic, outcome] = counter
        counter.inc(records)

    def passed_over(self, topic: str, skips: Iterable[object]) -> None:
        """Count skipped records of types that this release does not know."""
        unknown = sum(each is Skip.UNKNOWN for each in skips)
        if unknown:
            self.count(topic, "skipped", unknown)

    def applied(self, records: Sequence[Decoded]) -> None:
        """Count applied records of one topic, and observe their age."""
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
        _observe(written, written_future, [now - each.record.timestamp_ms / 1000 for each in records])
        _observe(whole, whole_future, [now - each.event.occurred_at.timestamp() for each in records])
        if log.least <= logging.DEBUG:
            for each in records:
                log.debug("record.applied", event_type=each.event.type, **self._where(each.record))

    def conflicted(self, record: ConsumedRecord) -> None:
        """Count an id that is known with another body; sources are configured names, so the label is bounded."""
        self._metrics.id_conflicts.labels(self._metrics.service, record.header("ce_source")).inc()

    def retried(self, record: ConsumedRecord, failure: Failure, *, attempt: int, first: bool) -> None:
        """Count and log a record that is retried; if the sink is at fault, log only the record's `first` failure."""
        if failure.cls == "systemic":
            self.sink_failed(failure.code, first=first, **self._where(record))
        else:
            self.count(record.topic, "retry")
            log.warning("record.retried", code=failure.code, attempts=attempt, **self._where(record))

    def sink_failed(self, code: str, *, first: bool = False, **where: Any) -> None:
        """Log a failure of the sink: the `first` of a record, and at most one other per minute."""
        now = time.monotonic()
        if first or now >= self._sink_due:
            self._sink_due = now + SINK_LOG_S
            log.warning("worker.sink_failed", code=code, **{"group": self._group, **where})

    def retried_batch(self, topic: str, records: int, *, code: str) -> None:
        """Count and log records that are retried together, with none at fault."""
        self.count(topic, "retry", records)
        log.warning("worker.batch_retried", code=code, records=records, topic=topic, group=self._group)

    def parked(self, record: ConsumedRecord, failure: Failure, *, attempts: int) -> None:
        """Count and log the record that parked its key, or keeps it parked after a release."""
        self.count(record.topic, "parked")
        self._metrics.park.labels(self._metrics.service, failure.cls).inc()
        log.error(
            "record.parked", code=failure.code, attempts=attempts, **{"class": failure.cls}, **self._where(record)
        )

    def bug(self, exc: BaseException, tp: TopicPartition, *, offset: int | None) -> None:
        """Count an exception that is not a `BridgeError`, and log its code locations only."""
        self._metrics.consumer_bugs.inc()
        at = {"group": self._group, **tp._asdict(), "offset": offset}
        log.error("worker.handler_bug", where=trail(exc), **at)

    def fenced(self) -> None:
        """Count a transaction rejected because another member has claimed the partition."""
        self._metrics.fence_rejected.inc()

    def _where(self, record: ConsumedRecord) -> dict[str, Any]:
        return {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "event_id": record.header("ce_id"),
            "record_key": (record.key or b"").decode("utf-8", "replace"),
            "group": self._group,
            **({"trace_id": self._tracing.id_of(record.header("traceparent"))} if self._tracing else {}),
        }


def _observe(histogram: Any, future: Any, ages_s: Sequence[float]) -> None:
    if min(ages_s) < 0:
        future.inc(sum(age_s < 0 for age_s in ages_s))
        ages_s = [max(0.0, age_s) for age_s in ages_s]
    histogram.observe_all(ages_s)
