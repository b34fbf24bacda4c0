"""Every metric of a consumer process, with closed label sets; one registry per process.

`Tally` counts what became of records, and logs those that need attention.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Literal, get_args

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

Outcome = Literal["applied", "duplicate", "stale", "skipped", "parked", "retry"]
"""`duplicate`: its event was settled before. `stale`: the record itself was, by an earlier owner. `skipped`: of a
type that this release does not know, and the consumer skips those. `retry` is no end."""


class ConsumerMetrics:
    """The metrics of `drx-consumer run`; attributes are named as the metrics are, without prefix and suffix."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register everything; call once per registry. `service` is the consumer's group."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self.service = service
        self._records()
        self._group()
        self._parking()
        self._outbox()
        self._health()

    def _counter(self, name: str, text: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, text, ("service", *labels), namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, text, ("service", *labels), namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], labels: Iterable[str] = ()) -> Histogram:
        return LoopHistogram(
            name, text, ("service", *labels), namespace=NAMESPACE, registry=self.registry, buckets=tuple(buckets)
        )

    def _records(self) -> None:
        self.consumer_records = self._counter("consumer_records", "Records, by outcome", ("topic", "outcome"))
        self.consumer_last_applied = self._gauge(
            "consumer_last_applied_timestamp_seconds",
            "Time at which a record of the topic was last applied",
            ("topic",),
        )
        self.freshness = self._histogram(
            "freshness_seconds", "Age of an event when it reached a stage", FRESHNESS_BUCKETS, ("segment",)
        )
        self.freshness_negative = self._counter(
            "freshness_negative", "Events whose time is in the future", ("segment",)
        )
        self.bugs = self._counter("consumer_bugs", "Exceptions of handlers that are no BridgeError")
        self.id_conflicts = self._counter(
            "id_conflicts", "Events whose id was seen before with another body", ("source",)
        )

    def _group(self) -> None:
        place = ("topic", "partition")
        self.consumer_lag_records = self._gauge("consumer_lag_records", "Records not settled yet", place)
        self.consumer_lag_seconds = self._gauge("consumer_lag_seconds", "Age of the oldest record not settled", place)
        self.consumer_settled_offset = self._gauge(
            "consumer_settled_offset", "Offset below which everything is settled", place
        )
        self.consumer_rebalances = self._counter(
            "consumer_rebalances", "Partitions assigned, revoked or lost", ("kind",)
        )
        self.consumer_assigned_partitions = self._gauge(
            "consumer_assigned_partitions", "Partitions assigned to this member"
        )
        self.consumer_paused_partitions = self._gauge(
            "consumer_paused_partitions", "Partitions whose fetching is paused"
        )
        self.consumer_stopped_partitions = self._gauge(
            "consumer_stopped_partitions", "Partitions stopped until an operator acts", ("code",)
        )
        self.commit = self._histogram("commit_seconds", "Duration of an offset commit to Kafka", DURATION_BUCKETS)
        self.fence_rejected = self._counter(
            "fence_rejected",
            "Transactions rejected because another member had claimed the partition, or the database had lost commits",
        )
        self.client_rebuilds = self._counter("client_rebuilds", "Kafka clients that failed and were replaced")
        self.consumer_start = self._gauge("consumer_start_timestamp_seconds", "When the process began, in Unix time")
        self.consumer_start.labels(self.service).set(time.time())
        self.poll_age = self._gauge("poll_age_seconds", "Time since the last poll returned")

    def _parking(self) -> None:
        self.parked_keys = self._gauge("parked_keys", "Parked keys")
        self.parked_events = self._gauge("parked_events", "Events of parked keys")
        self.parked_oldest_age = self._gauge("parked_oldest_age_seconds", "Age of the oldest parked key")
        self.park = self._counter("park", "Keys parked, by class of failure", ("class",))
        self.park_breaker_open = self._gauge("park_breaker_open", "1 while the park limit stops the consumer")
        self.parking_full_partitions = self._gauge(
            "parking_full_partitions", "Partitions stopped because too much is parked to park more"
        )

    def _outbox(self) -> None:
        self.outbox_records = self._gauge("outbox_records", "Records published by handlers and not yet in Kafka")
        self.outbox_oldest_age = self._gauge(
            "outbox_oldest_age_seconds", "Age of the oldest record in the outbox; 0 if it is empty"
        )
        for gauge in (self.outbox_records, self.outbox_oldest_age):
            gauge.labels(self.service)
        self.outbox_published = self._counter(
            "outbox_published", "Records of the outbox that were written to Kafka", ("topic",)
        )

    def _health(self) -> None:
        self.inflight_records = self._gauge("inflight_records", "Records read and not settled")
        self.oldest_inflight_age = self._gauge(
            "oldest_inflight_age_seconds", "Age of the oldest record that was read and not settled"
        )
        self.circuit_state = self._gauge("circuit_state", "1 for the current state of the circuit breaker", ("state",))
        self.consumer_sink_failures = self._counter(
            "consumer_sink_failures", "Calls that failed because the sink is unavailable"
        )
        self.event_loop_lag = Histogram(
            "event_loop_lag_seconds",
            "Delay of the event loop",
            namespace=NAMESPACE,
            registry=self.registry,
            buckets=LAG_BUCKETS,
        )
        self.log_dropped = LogDropped({"service": self.service})
        self.registry.register(self.log_dropped)
        build = Gauge("build_info", "1, with the version", ("version",), namespace=NAMESPACE, registry=self.registry)
        build.labels(version=version("drx-bridge")).set(1)


class Tally:
    """Counts for one consumer; a number of records at a time where there may be thousands a second.

    Attributes:
        tries: Attempts of any kind, at records of any partition.
    """

    def __init__(self, metrics: ConsumerMetrics, *, group: str, topics: Iterable[str]) -> None:
        """Count into `metrics`; the series are there from the start, so that a rate sees the first of each."""
        self.tries = 0
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

    def count(self, topic: str, outcome: Outcome, records: int = 1) -> None:
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

    def tried(self) -> None:
        """Note that something is tried: it is not stuck."""
        self.tries += 1

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

    def appended(self, topic: str, records: int = 1) -> None:
        """Count records appended behind their parked key."""
        self.count(topic, "parked", records)

    def bug(self, exc: BaseException, place: Place, *, offset: int | None) -> None:
        """Count an exception outside the tree of errors, and log where it came from: places only."""
        self._metrics.bugs.labels(self._metrics.service).inc()
        at = {"group": self._group, "topic": place.topic, "partition": place.partition, "offset": offset}
        log.error("worker.handler_bug", where=trail(exc), **at)

    def fenced(self) -> None:
        """Count a transaction rejected because another member has claimed the partition."""
        self._metrics.fence_rejected.labels(self._metrics.service).inc()

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
