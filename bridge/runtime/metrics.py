"""Declaration of metrics, and the metrics of the ingress; label sets are closed, one registry per process."""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, NamedTuple, cast, get_args

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
from prometheus_client.samples import Exemplar

from bridge.runtime.http_server import Ended
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import output

NAMESPACE = "drxbridge"
# 0.25 and 2 are the edges of the latency objectives.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
# A local disk takes tenths of a millisecond, a network volume some milliseconds; a second indicates a problem.
FSYNC_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
# Shares of the response deadline; above 1 a response is late.
BUDGET_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
# Absolute values: OpenMetrics has neither sum nor count for histograms with negative buckets.
OFFSET_BUCKETS = (1, 5, 10, 30, 60, 300)
FRESHNESS_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 3600, 86_400)
# Delay of the event loop in seconds; above 100 ms it delays responses.
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
LAG_PERIOD_S = 1.0


class LoopHistogram(Histogram):
    """A histogram for the event loop's thread only: it omits the locks, which are most of the cost."""

    def observe(self, amount: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Count `amount` in the first bucket whose bound is not below it."""
        del exemplar
        self._sum._value += amount  # noqa: SLF001 - only the lock is skipped
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001 - as above

    def exemplify(self, amount: float, trace_id: str) -> None:
        """Set the exemplar of the bucket of `amount`; only OpenMetrics shows exemplars."""
        bucket = self._buckets[bisect_left(self._upper_bounds, amount)]
        bucket.set_exemplar(Exemplar({"trace_id": trace_id}, amount, time.time()))

    def observe_all(self, amounts: Iterable[float]) -> None:
        """Count many amounts, in a tenth of the time of single calls."""
        ascending = sorted(amounts)
        self._sum._value += sum(ascending)  # noqa: SLF001 - as above
        counted = 0
        for bucket, bound in zip(self._buckets, self._upper_bounds, strict=True):
            upto = bisect_right(ascending, bound)
            bucket._value += upto - counted  # noqa: SLF001 - as above
            counted = upto


class LoopCounter(Counter):
    """A counter used only on the event loop's thread, like `LoopHistogram`."""

    def inc(self, amount: float = 1, exemplar: Mapping[str, str] | None = None) -> None:
        """Add `amount`, which is not negative."""
        del exemplar
        self._value._value += amount  # noqa: SLF001 - as above


class LogDropped(Collector):
    """The counter of dropped log lines, read from the log writer when scraped."""

    def __init__(self, labels: Mapping[str, str] = MappingProxyType({})) -> None:
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        """Return the metric family with its value."""
        name, text = f"{NAMESPACE}_log_dropped", "Log lines that could not be written to standard output"
        family = CounterMetricFamily(name, text, labels=tuple(self._labels))
        family.add_metric(tuple(self._labels.values()), output.dropped)
        return [family]


class _Declared(NamedTuple):
    kind: type[Any]
    text: str
    labels: tuple[str, ...]
    suffix: str
    options: Mapping[str, Any] = MappingProxyType({})


def counter(text: str, *labels: str, kind: type[Counter] = Counter) -> Counter:
    """Declare a counter in a class of `Metrics`."""
    return cast("Counter", _Declared(kind, text, labels, ""))


def gauge(text: str, *labels: str, suffix: str = "") -> Gauge:
    """Declare a gauge; its name is that of the attribute plus `suffix`."""
    return cast("Gauge", _Declared(Gauge, text, labels, suffix))


def histogram(text: str, buckets: Iterable[float], *labels: str, suffix: str = "_seconds") -> LoopHistogram:
    """Declare a histogram; `suffix` as for `gauge`."""
    return cast("LoopHistogram", _Declared(LoopHistogram, text, labels, suffix, {"buckets": buckets}))


class Metrics:
    """Base of metric sets: registers the declared attributes and the metrics of every process."""

    def __init__(self, registry: CollectorRegistry, **fixed: str) -> None:
        """Register all metrics, with the `fixed` labels first; call once per registry."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        own: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        for name, each in vars(type(self)).items():
            if isinstance(each, _Declared):
                labels = (*fixed, *each.labels)
                made = each.kind(f"{name}{each.suffix}", each.text, labels, **own, **each.options)
                setattr(self, name, made.labels(*fixed.values()) if fixed and not each.labels else made)
        lag, late = "event_loop_lag_seconds", "Delay of the event loop"
        self.event_loop_lag = LoopHistogram(lag, late, buckets=LAG_BUCKETS, **own)
        self.log_dropped = LogDropped(fixed)
        registry.register(self.log_dropped)
        build = Gauge("build_info", "1, with the version of the package", ("version",), **own)
        build.labels(version=version("drx-bridge")).set(1)


class IngressMetrics(Metrics):
    """The metrics of `drx-bridge serve`."""

    http_requests = counter("Requests by response", "route", "method", "outcome", "code", kind=LoopCounter)
    http_request_duration = histogram(
        "Time from the request headers to the response", DURATION_BUCKETS, "route", "outcome"
    )
    http_inflight_requests = gauge("Deliveries in progress")
    http_open_connections = gauge("Open client connections")
    http_connections_ended = counter("Connections that the bridge has ended", "reason")
    sender_time_budget = histogram(
        "Share of the deadline that a response took, without refusals", BUDGET_BUCKETS, suffix="_ratio"
    )

    signature_failures = counter("Deliveries refused by signature verification", "source", "reason")
    signature_verified = counter("Deliveries verified, by secret slot", "key_slot", kind=LoopCounter)
    provider_clock_offset = histogram(
        "Absolute difference between receipt and the delivery's timestamp", OFFSET_BUCKETS, "source"
    )
    secret_reload = counter("Reloads of a secrets directory", "source", "outcome")
    secret_expiry = gauge("When the last secret of a source expires", "source", suffix="_timestamp_seconds")

    unrecognized = counter("Verified deliveries parked", "source", "reason")
    extension_fields = counter("Fields outside the contract", "event_type", "pointer")
    other_reported = counter("Events of types that the contract does not know", "source", "reported_type")
    lenient_fields = counter("Lenient conversions applied, none of which loses data", "flag")
    fast_path_deferrals = counter("Deliveries that the fast path left to the reference code", "source", "cause")
    source_last_event = gauge("Receipt of the newest event", "source", suffix="_timestamp_seconds")
    freshness = histogram("Age of an event when it reached a stage", FRESHNESS_BUCKETS, "service", "segment")
    freshness_negative = counter("Events whose time is in the future", "service", "segment")

    dedupe_ready = gauge("1 while the ids at the end of the bridge's topics are known")
    dedupe_follow_lag_seconds = gauge(
        "Maximum time for which ids written by other replicas may be unknown; NaN before the first read"
    )
    dedupe_ids = gauge("Remembered ids of committed and spooled events")
    dedupe_evicted_early = counter("Ids removed before the end of their window because the capacity was reached")
    id_conflicts = counter("Events whose id was known with another body", "source")

    produce_duration = histogram("Time for Kafka to acknowledge a batch", DURATION_BUCKETS, "topic")
    produce = counter("Records by Kafka's response", "topic", "outcome")
    producer_state = gauge("1 for the current state of the producer", "state")
    producer_generation = gauge("Producers built since the start")
    oldest_unacked = gauge("Age of the oldest record not acknowledged", suffix="_seconds")
    late_acks = counter("Acknowledgements after the sender had received another response")
    partition_count_mismatch = gauge("1 if the partition count of a topic differs from the setting", "topic")
    schema_registry_requests = counter("Requests to the schema registry", "outcome")

    spool_available = gauge("1 while the spool accepts events")
    spool_events = gauge("Events that are spooled and not acknowledged by Kafka")
    spool_bytes = gauge("Bytes of the segments on disk")
    spool_capacity_bytes = gauge("Maximum bytes of segments")
    spool_free_bytes = gauge(
        "Bytes that the spool may still write: the smaller of what its capacity and its disk leave"
    )
    spool_oldest_event = gauge(
        "When the oldest spooled event was accepted; 0 if there is none", suffix="_timestamp_seconds"
    )
    spooling_partitions = gauge("Partitions whose new events are spooled")
    spool_blocked_partitions = gauge("Partitions with a spooled record that Kafka refuses")
    spool_locked_records = gauge("Records whose key is missing, or written by another version of the bridge")
    spool_unread_segments = gauge("Segments that the disk could not read in full; the next start reads them again")
    spool_failing_segments = gauge("Segments that the disk failed to complete, write once more or remove; retried")
    spool_set_aside_records = gauge("Records that are set aside and not put back")
    spool_corrupt_records = counter("Records found damaged")
    spool_torn_tails = counter("Unfinished last writes cut off at a start")
    spool_fsync_duration = histogram("Time for the disk to make a group of records durable", FSYNC_BUCKETS)

    heartbeat_last_seen = gauge(
        "When a heartbeat last reached Kafka; at first the time of the start", "service", suffix="_timestamp_seconds"
    )

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        for reason in get_args(Ended):
            self.http_connections_ended.labels(reason)


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
