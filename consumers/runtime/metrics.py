"""Every metric of a consumer process, with closed label sets; one registry per process."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from bridge.runtime.metrics import (
    DURATION_BUCKETS,
    FRESHNESS_BUCKETS,
    LAG_BUCKETS,
    NAMESPACE,
    LogDropped,
    LoopHistogram,
)


class ConsumerMetrics:
    """The metrics of `drx-consumer run`; attributes are named as the metrics are, without prefix and suffix."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register everything; call once per registry. `service` is the consumer's name."""
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
        self.consumer_records = self._counter(
            "consumer_records", "Records by what became of them", ("topic", "outcome")
        )
        self.consumer_last_applied = self._gauge(
            "consumer_last_applied_timestamp_seconds", "When a record of the topic was last applied", ("topic",)
        )
        self.freshness = self._histogram(
            "freshness_seconds", "Age of an event at a stage", FRESHNESS_BUCKETS, ("segment",)
        )
        self.freshness_negative = self._counter(
            "freshness_negative", "Events whose time is in the future", ("segment",)
        )
        self.bugs = self._counter("consumer_bugs", "Handler exceptions outside the tree of errors")
        self.id_conflicts = self._counter("id_conflicts", "Equal ids with another body", ("source",))

    def _group(self) -> None:
        place = ("topic", "partition")
        self.consumer_lag_records = self._gauge("consumer_lag_records", "Records not settled yet", place)
        self.consumer_lag_seconds = self._gauge("consumer_lag_seconds", "Age of the oldest record not settled", place)
        self.consumer_settled_offset = self._gauge(
            "consumer_settled_offset", "Offset below which everything is settled", place
        )
        self.consumer_rebalances = self._counter("consumer_rebalances", "Partitions given or taken", ("kind",))
        self.consumer_assigned_partitions = self._gauge("consumer_assigned_partitions", "Partitions of this member")
        self.consumer_paused_partitions = self._gauge("consumer_paused_partitions", "Partitions not read now")
        self.consumer_stopped_partitions = self._gauge(
            "consumer_stopped_partitions", "Partitions not read until an operator decides", ("code",)
        )
        self.commit = self._histogram("commit_seconds", "Time of one commit to Kafka", DURATION_BUCKETS)
        self.fence_rejected = self._counter("fence_rejected", "Transactions of a member that lost its partition")
        self.client_rebuilds = self._counter("client_rebuilds", "Kafka clients given up and built anew")
        self.poll_age = self._gauge("poll_age_seconds", "Time since the last poll returned")

    def _parking(self) -> None:
        self.parked_keys = self._gauge("parked_keys", "Keys set aside")
        self.parked_events = self._gauge("parked_events", "Events of parked keys")
        self.parked_oldest_age = self._gauge("parked_oldest_age_seconds", "Age of the oldest parked key")
        self.park = self._counter("park", "Keys parked, by class of failure", ("class",))
        self.park_breaker_open = self._gauge("park_breaker_open", "1 while too much is parked to go on")
        self.parking_full_partitions = self._gauge("parking_full_partitions", "Partitions stopped by a full lot")

    def _outbox(self) -> None:
        self.outbox_records = self._gauge("outbox_records", "Records published by handlers and not yet in Kafka")
        self.outbox_oldest_age = self._gauge("outbox_oldest_age_seconds", "Age of the oldest of them; 0 without any")
        for gauge in (self.outbox_records, self.outbox_oldest_age):
            gauge.labels(self.service)
        self.outbox_published = self._counter("outbox_published", "Records from the outbox in Kafka", ("topic",))

    def _health(self) -> None:
        self.inflight_records = self._gauge("inflight_records", "Records taken in and not settled")
        self.oldest_inflight_age = self._gauge("oldest_inflight_age_seconds", "Age of the oldest record in flight")
        self.circuit_state = self._gauge("circuit_state", "1 for the state the sink's circuit is in", ("state",))
        self.consumer_sink_failures = self._counter(
            "consumer_sink_failures", "Calls that failed as if the sink were away"
        )
        self.event_loop_lag = Histogram(
            "event_loop_lag_seconds",
            "How late the event loop is",
            namespace=NAMESPACE,
            registry=self.registry,
            buckets=LAG_BUCKETS,
        )
        self.log_dropped = LogDropped({"service": self.service})
        self.registry.register(self.log_dropped)
        build = Gauge("build_info", "1, with the version", ("version",), namespace=NAMESPACE, registry=self.registry)
        build.labels(version=version("drx-bridge")).set(1)
