"""Every metric of the ingress, with closed label sets; one registry per process."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.runtime.http import Ended
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import output

NAMESPACE = "drxbridge"
# 0.25 and 2 are the edges of the latency objectives.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
# A local disk takes tenths of milliseconds, a network volume some; a second means that it is in trouble.
FSYNC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
# Of the time within which an answer is promised; from 1 on the sender has gone.
BUDGET_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
BODY_BUCKETS = (256, 1024, 4096, 16_384, 65_536, 262_144)
# Absolute values: OpenMetrics has no sum and no count for a histogram with buckets below zero.
OFFSET_BUCKETS = (1, 5, 10, 30, 60, 300)
FRESHNESS_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 3600, 86_400)
# The loop is late by this much; above 100 ms answers suffer.
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
LAG_PERIOD_S = 1.0


class LoopHistogram(Histogram):
    """A histogram that is observed and read on one thread, the loop's, so without locks, which cost most."""

    def observe(self, amount: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count `amount`; the first bucket whose bound is not below it is its own."""
        del exemplar
        self._sum._value += amount  # noqa: SLF001 - behind it is only the lock
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001 - as above

    def observe_all(self, amounts: Iterable[float]) -> None:
        """Count many amounts, in a tenth of the time that one by one takes."""
        ascending = sorted(amounts)
        self._sum._value += sum(ascending)  # noqa: SLF001 - as above
        counted = 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            upto = bisect_right(ascending, bound)
            bucket._value += upto - counted  # noqa: SLF001 - as above
            counted = upto


class LoopCounter(Counter):
    """A counter of what happens on the loop's thread for every delivery, as `LoopHistogram`."""

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None) -> None:
        """Add `amount`, which is not negative."""
        del exemplar
        self._value._value += amount  # noqa: SLF001 - as above


class LogDropped(Collector):
    """The counter of log lines that were not written; read from the writer, which counts without locks of ours."""

    def __init__(self, labels: Mapping[str, str] = MappingProxyType({})) -> None:
        self._labels = labels

    def describe(self) -> Iterable[Metric]:
        """Return the family without a value, as a registry asks for when this is registered."""
        name, text = f"{NAMESPACE}_log_dropped", "Log lines that could not be written to standard output"
        return [CounterMetricFamily(name, text, labels=tuple(self._labels))]

    def collect(self) -> Iterable[Metric]:
        """Return the family with its value."""
        (family,) = self.describe()
        family.add_sample(f"{family.name}_total", dict(self._labels), output.dropped)
        return [family]


class IngressMetrics:
    """The metrics of `drx-bridge serve`; attributes are named as the metrics are, without prefix and suffix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register everything; call once per registry."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self._http()
        self._signatures()
        self._events()
        self._dedupe()
        self._producer()
        self._spool()
        self._process()

    def _counter(self, name: str, text: str, labels: Iterable[str] = (), *, kind: type[Counter] = Counter) -> Counter:
        return kind(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], labels: Iterable[str] = ()) -> Histogram:
        return LoopHistogram(name, text, labels, namespace=NAMESPACE, registry=self.registry, buckets=tuple(buckets))

    def _http(self) -> None:
        self.http_requests = self._counter(
            "http_requests", "Requests by answer", ("route", "method", "outcome", "code"), kind=LoopCounter
        )
        self.http_request_duration = self._histogram(
            "http_request_duration_seconds",
            "Time from the request head to the answer",
            DURATION_BUCKETS,
            ("route", "outcome"),
        )
        self.http_inflight_requests = self._gauge("http_inflight_requests", "Deliveries in progress")
        self.http_open_connections = self._gauge("http_open_connections", "Open client connections")
        self.http_connections_ended = self._counter(
            "http_connections_ended", "Connections that the bridge has ended", ("reason",)
        )
        for reason in get_args(Ended):
            self.http_connections_ended.labels(reason)
        self.http_request_body_bytes = self._histogram("http_request_body_bytes", "Size of bodies read", BODY_BUCKETS)
        self.sender_time_budget = self._histogram(
            "sender_time_budget_ratio", "Share of the deadline that an answer took, without refusals", BUDGET_BUCKETS
        )

    def _signatures(self) -> None:
        self.signature_failures = self._counter(
            "signature_failures", "Deliveries refused by signature verification", ("source", "reason")
        )
        self.signature_verified = self._counter(
            "signature_verified", "Deliveries verified, by secret slot", ("key_slot",), kind=LoopCounter
        )
        self.provider_clock_offset = self._histogram(
            "provider_clock_offset_seconds",
            "Absolute difference between receipt and the delivery's timestamp",
            OFFSET_BUCKETS,
            ("source",),
        )
        self.secret_reload = self._counter("secret_reload", "Reloads of a secrets directory", ("source", "outcome"))
        self.secret_expiry = self._gauge(
            "secret_expiry_timestamp_seconds", "When the last secret of a source expires", ("source",)
        )

    def _events(self) -> None:
        self.unrecognized = self._counter("unrecognized", "Verified deliveries parked", ("source", "reason"))
        self.extension_fields = self._counter("extension_fields", "Fields outside the contract", ("event_type",))
        self.other_reported = self._counter(
            "other_reported", "Events of types that the contract does not know", ("source", "reported_type")
        )
        self.lenient_fields = self._counter(
            "lenient_fields", "Lenient conversions applied, none of which loses data", ("flag",)
        )
        self.engine_deferrals = self._counter(
            "engine_deferrals", "Deliveries that the engine left to the reference code", ("source", "cause")
        )
        self.source_last_event = self._gauge(
            "source_last_event_timestamp_seconds", "Receipt of the newest event", ("source",)
        )
        self.freshness = self._histogram(
            "freshness_seconds", "Age of an event when it reached a stage", FRESHNESS_BUCKETS, ("service", "segment")
        )
        self.freshness_negative = self._counter(
            "freshness_negative", "Events whose time is in the future", ("service", "segment")
        )

    def _dedupe(self) -> None:
        self.dedupe_ready = self._gauge("dedupe_ready", "1 while the ids at the end of the bridge's topics are known")
        self.dedupe_follow_lag_seconds = self._gauge(
            "dedupe_follow_lag_seconds",
            "For how long ids written by other replicas may be unknown; NaN before the first time",
        )
        self.dedupe_ids = self._gauge("dedupe_ids", "Remembered ids of committed and spooled events")
        self.dedupe_evicted_early = self._counter(
            "dedupe_evicted_early", "Ids removed for lack of capacity before their window ended"
        )
        self.id_conflicts = self._counter("id_conflicts", "Events whose id was known with another body", ("source",))

    def _producer(self) -> None:
        self.produce_duration = self._histogram(
            "produce_duration_seconds", "Time for Kafka to acknowledge a batch", DURATION_BUCKETS, ("topic",)
        )
        self.produce = self._counter("produce", "Records by Kafka's answer", ("topic", "outcome"))
        self.producer_state = self._gauge("producer_state", "1 for the current state of the producer", ("state",))
        self.producer_generation = self._gauge("producer_generation", "Producers built since the start")
        self.oldest_unacked = self._gauge("oldest_unacked_seconds", "Age of the oldest record not acknowledged")
        self.late_acks = self._counter("late_acks", "Acknowledgements after the sender had received another answer")
        self.partition_count_mismatch = self._gauge(
            "partition_count_mismatch", "1 if the partition count of a topic differs from the setting", ("topic",)
        )
        self.schema_registry_requests = self._counter(
            "schema_registry_requests", "Requests to the schema registry", ("outcome",)
        )

    def _spool(self) -> None:
        self.spool_available = self._gauge("spool_available", "1 while the spool accepts events")
        self.spool_events = self._gauge("spool_events", "Events that are spooled and not acknowledged by Kafka")
        self.spool_bytes = self._gauge("spool_bytes", "Bytes of the segments on disk")
        self.spool_capacity_bytes = self._gauge("spool_capacity_bytes", "Most bytes of segments")
        self.spool_free_bytes = self._gauge(
            "spool_free_bytes", "Bytes that the spool may still write: what its capacity and its disk both leave"
        )
        self.spool_oldest_event = self._gauge(
            "spool_oldest_event_timestamp_seconds", "When the oldest spooled event was accepted; 0 if there is none"
        )
        self.spooling_partitions = self._gauge("spooling_partitions", "Partitions whose new events are spooled")
        self.spool_blocked_partitions = self._gauge(
            "spool_blocked_partitions", "Partitions with a spooled record that Kafka refuses"
        )
        self.spool_locked_records = self._gauge(
            "spool_locked_records", "Records whose key is missing, or that another version of the bridge wrote"
        )
        self.spool_unread_segments = self._gauge(
            "spool_unread_segments", "Segments that the disk could not read in full; the next start reads them again"
        )
        self.spool_set_aside_records = self._gauge(
            "spool_set_aside_records", "Records that are set aside and not put back"
        )
        self.spool_corrupt_records = self._counter("spool_corrupt_records", "Records found damaged")
        self.spool_torn_tails = self._counter("spool_torn_tails", "Unfinished last writes cut off at a start")
        self.spool_fsync_duration = self._histogram(
            "spool_fsync_duration_seconds", "Time for the disk to make a group of records durable", FSYNC_BUCKETS
        )

    def _process(self) -> None:
        self.heartbeat_last_seen = self._gauge(
            "heartbeat_last_seen_timestamp_seconds",
            "When a heartbeat last reached Kafka; at first the time of the start",
            ("service",),
        )
        self.event_loop_lag = self._histogram("event_loop_lag_seconds", "Delay of the event loop", LAG_BUCKETS)
        self.log_dropped = LogDropped()
        self.registry.register(self.log_dropped)
        build = self._gauge("build_info", "1, with the version of the package", ("version",))
        build.labels(version=version("drx-bridge")).set(1)


class LoopLag:
    """A worker that measures how late a timer fires."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    async def run(self, stop: asyncio.Event) -> None:
        """Measure once a period until `stop` is set."""
        while not stop.is_set():
            due = time.monotonic() + LAG_PERIOD_S
            if await pause(stop, LAG_PERIOD_S):
                self._histogram.observe(max(0.0, time.monotonic() - due))
