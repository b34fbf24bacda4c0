"""Every metric of a consumer process, with closed label sets; one registry per process.

`Tally` counts what became of records, and logs those that need attention.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Literal, TypeVar, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from bridge.kafka.transport import ConsumedRecord, Place
from bridge.runtime.logging import log, trail
from bridge.runtime.metrics import (
    DURATION_BUCKETS,
    FRESHNESS_BUCKETS,
    LAG_BUCKETS,
    NAMESPACE,
    LogDropped,
    LoopHistogram,
)
from consumers.runtime.failure import Failure, FailureClass
from consumers.runtime.sorting import Skip, Sorted

AnyMetric = TypeVar("AnyMetric", Counter, Gauge, LoopHistogram)
RecordOutcome = Literal["applied", "duplicate", "stale", "skipped", "parked", "retry"]
"""`duplicate`: its event was settled before. `stale`: the record itself was, by an earlier owner. `skipped`: of a
type that this release does not know, and the consumer skips those. `retry` is no end."""


class ConsumerMetrics:
    """The metrics of `drx-consumer run`; attributes are named as the metrics are, without prefix and suffix.

    Each has the label `service`, the consumer's group. Those without another one are there from the start.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register everything; call once per registry."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self.service = service
        self.log_dropped = LogDropped({"service": service})
        registry.register(self.log_dropped)
        build = Gauge("build_info", "1, with the version", ("version",), namespace=NAMESPACE, registry=registry)
        build.labels(version=version("drx-bridge")).set(1)
        self.event_loop_lag = Histogram(
            "event_loop_lag_seconds",
            "Delay of the event loop",
            namespace=NAMESPACE,
            registry=registry,
            buckets=LAG_BUCKETS,
        )
        self._records()
        self._group()
        self._waiting()

    def _made(self, kind: type[AnyMetric], name: str, text: str, *labels: str, **options: Any) -> AnyMetric:
        made = kind(name, text, ("service", *labels), namespace=NAMESPACE, registry=self.registry, **options)
        return made if labels else made.labels(self.service)

    def _records(self) -> None:
        made = self._made
        self.consumer_records = made(Counter, "consumer_records", "Records, by outcome", "topic", "outcome")
        self.consumer_last_applied = made(
            Gauge,
            "consumer_last_applied_timestamp_seconds",
            "Time at which a record of the topic was last applied",
            "topic",
        )
        self.freshness = made(
            LoopHistogram,
            "freshness_seconds",
            "Age of an event when it reached a stage",
            "segment",
            buckets=FRESHNESS_BUCKETS,
        )
        self.freshness_negative = made(Counter, "freshness_negative", "Events whose time is in the future", "segment")
        self.bugs = made(Counter, "consumer_bugs", "Exceptions of handlers that are no BridgeError")
        self.id_conflicts = made(Counter, "id_conflicts", "Events whose id was seen before with another body", "source")
        self.circuit_state = made(Gauge, "circuit_state", "1 for the current state of the circuit breaker", "state")
        self.consumer_sink_failures = made(
            Counter, "consumer_sink_failures", "Calls that failed because the sink is unavailable"
        )

    def _group(self) -> None:
        made, place = self._made, ("topic", "partition")
        self.consumer_lag_records = made(Gauge, "consumer_lag_records", "Records not settled yet", *place)
        self.consumer_lag_seconds = made(Gauge, "consumer_lag_seconds", "Age of the oldest record not settled", *place)
        self.consumer_settled_offset = made(
            Gauge, "consumer_settled_offset", "Offset below which everything is settled", *place
        )
        self.consumer_rebalances = made(Counter, "consumer_rebalances", "Partitions assigned, revoked or lost", "kind")
        self.consumer_assigned_partitions = made(
            Gauge, "consumer_assigned_partitions", "Partitions assigned to this member"
        )
        self.consumer_paused_partitions = made(
            Gauge, "consumer_paused_partitions", "Partitions whose fetching is paused"
        )
        self.consumer_stopped_partitions = made(
            Gauge, "consumer_stopped_partitions", "Partitions stopped until an operator acts", "code"
        )
        self.commit = made(
            LoopHistogram, "commit_seconds", "Duration of an offset commit to Kafka", buckets=DURATION_BUCKETS
        )
        self.fence_rejected = made(
            Counter,
            "fence_rejected",
            "Transactions rejected because another member had claimed the partition, or the database had lost commits",
        )
        self.client_rebuilds = made(Counter, "client_rebuilds", "Kafka clients that failed and were replaced")
        self.consumer_start = made(Gauge, "consumer_start_timestamp_seconds", "When the process began, in Unix time")
        self.consumer_start.set(time.time())
        # Without a series until there is a member: `ConsumerStuck` fires for a process that waits at its start.
        self.poll_age = Gauge(
            "poll_age_seconds",
            "Time since the last poll returned",
            ("service",),
            namespace=NAMESPACE,
            registry=self.registry,
        )

    def _waiting(self) -> None:
        made = self._made
        self.inflight_records = made(Gauge, "inflight_records", "Records read and not settled")
        self.oldest_inflight_age = made(
            Gauge, "oldest_inflight_age_seconds", "Age of the oldest record that was read and not settled"
        )
        self.parked_keys = made(Gauge, "parked_keys", "Parked keys")
        self.parked_events = made(Gauge, "parked_events", "Events of parked keys")
        self.parked_oldest_age = made(Gauge, "parked_oldest_age_seconds", "Age of the oldest parked key")
        self.park = made(Counter, "park", "Keys parked, by class of failure", "class")
        self.park_breaker_open = made(Gauge, "park_breaker_open", "1 while the park limit stops the consumer")
        self.parking_full_partitions = made(
            Gauge, "parking_full_partitions", "Partitions stopped because too much is parked to park more"
        )
        self.outbox_records = made(Gauge, "outbox_records", "Records published by handlers and not yet in Kafka")
        self.outbox_oldest_age = made(
            Gauge, "outbox_oldest_age_seconds", "Age of the oldest record in the outbox; 0 if it is empty"
        )
        self.outbox_published = made(
            Counter, "outbox_published", "Records of the outbox that were written to Kafka", "topic"
        )


class Tally:
    """Counts for one consumer; a number of records at a time where there may be thousands a second."""

    def __init__(self, metrics: ConsumerMetrics, *, group: str, topics: Iterable[str]) -> None:
        """Count into `metrics`; all series exist from the start, so that `rate` sees the first of each."""
        self._metrics = metrics
        self._group = group
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
        """Count, among skipped records, those of types that this release does not know."""
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
        _observe(written, written_future, [now - each.record.timestamp_ms / 1000 for each in records])
        _observe(whole, whole_future, [now - each.event.occurred_at.timestamp() for each in records])
        if log.least <= logging.DEBUG:
            for each in records:
                log.debug("record.applied", event_type=each.event.type, **self._where(each.record))

    def conflicted(self, record: ConsumedRecord) -> None:
        """Count an id that came with another body; its source is a configured name, so the label is bounded."""
        self._metrics.id_conflicts.labels(self._metrics.service, record.header("ce_source")).inc()

    def retried(self, record: ConsumedRecord, failure: Failure, *, attempt: int) -> None:
        """Count and log a record that is tried again, unless the sink is at fault: the circuit logs that."""
        if failure.cls != "systemic":
            self.count(record.topic, "retry")
            log.warning("record.retried", code=failure.code, attempts=attempt, **self._where(record))

    def retried_batch(self, topic: str, records: int, *, code: str) -> None:
        """Count and log records that are tried again together, none of them being at fault."""
        self.count(topic, "retry", records)
        log.warning("worker.batch_retried", code=code, records=records, topic=topic, group=self._group)

    def parked(self, record: ConsumedRecord, failure: Failure, *, attempts: int) -> None:
        """Count and log the record that parked its key, or keeps it parked after a release."""
        self.count(record.topic, "parked")
        self._metrics.park.labels(self._metrics.service, failure.cls).inc()
        log.error(
            "record.parked", code=failure.code, attempts=attempts, **{"class": failure.cls}, **self._where(record)
        )

    def bug(self, exc: BaseException, place: Place, *, offset: int | None) -> None:
        """Count an exception outside the tree of errors, and log where it came from: places only."""
        self._metrics.bugs.inc()
        at = {"group": self._group, "topic": place.topic, "partition": place.partition, "offset": offset}
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
        }


def _observe(histogram: Any, future: Any, ages_s: Sequence[float]) -> None:
    if min(ages_s) < 0:
        future.inc(sum(age_s < 0 for age_s in ages_s))
        ages_s = [max(0.0, age_s) for age_s in ages_s]
    histogram.observe_all(ages_s)
