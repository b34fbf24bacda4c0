"""Counters of the public port, in the metrics that `runtime/metrics.py` declares.

Every labelled child is resolved once, so that counting is only an addition.
"""

import time
from collections.abc import Callable, Iterable

from prometheus_client import Counter

from bridge.answers import PARKED, REFUSED, STATUS, UNAVAILABLE, proof_failures
from bridge.contract.events import OTHER_REPORTED, plain_pointer, plain_type
from bridge.event import Delivery, Event
from bridge.mapping.profile import FLAGS, Mapped
from bridge.runtime.metrics import IngressMetrics, LoopHistogram

ROUTE = "/webhooks/{source}"
OTHER = "other"
UNKNOWN = "unknown"
POST = "POST"
SERVICE = "ingress"
# Most label values of one metric that come from senders: unknown types and members. A sender has a dozen of each; a
# wrong mapping could create any number.
WORDS_MAX = 50
# Why the fast path deferred a delivery: it does not conform plainly, or the fast path failed.
DEFERRALS = ("form", "fault")
# Label values for slots; other names count as `other`, to bound the number of values.
SLOT_WORDS = ("current", "previous", "other")
# Refusals before a source was found.
UNROUTED = ("malformed_http", "not_found", "method_not_allowed")


class Observed:
    """Facts about one request, gathered for its log line and metrics."""

    __slots__ = ("began", "end_span", "event_id", "method", "routed", "source")

    def __init__(self, method: str, *, began: float = 0.0) -> None:
        """`began` is by `time.perf_counter`; default: now."""
        self.began = began or time.perf_counter()
        self.method = method
        self.routed = False
        self.source = UNKNOWN
        self.event_id = ""
        # Ends its span, if any; returns the trace id, and whether the trace is exported.
        self.end_span: Callable[..., tuple[str, bool]] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the head was read."""
        return time.perf_counter() - self.began


class Observations:
    """Counters of the ingress, one method per event."""

    def __init__(self, metrics: IngressMetrics, *, sources: Iterable[str], deadline_s: float) -> None:
        """Resolve the children of all known labels; `deadline_s` is the answer deadline."""
        self._metrics = metrics
        self._deadline_s = deadline_s
        names = tuple(sources)
        self._verified = {slot: metrics.signature_verified.labels(slot) for slot in SLOT_WORDS}
        for name in names:
            for reason in proof_failures():  # created at startup, so that `rate` sees the first increment
                metrics.signature_failures.labels(name, reason)
            for cause in DEFERRALS:
                metrics.fast_path_deferrals.labels(name, cause)
        self._offsets = {name: metrics.provider_clock_offset.labels(name) for name in names}
        self._parked = {
            (name, reason): metrics.unrecognized.labels(name, reason) for name in names for reason in PARKED
        }
        self._conflicts = {name: metrics.id_conflicts.labels(name) for name in names}
        self._flags = {flag: metrics.lenient_fields.labels(flag) for flag in FLAGS}
        self._reported_types: set[str] = set()
        self._extensions: set[str] = set()
        self._last_event = {name: metrics.source_last_event.labels(name) for name in names}
        self._age = metrics.freshness.labels(SERVICE, "provider_to_ingress")
        self._written = metrics.freshness.labels(SERVICE, "ingress_to_kafka")
        self._future = metrics.freshness_negative.labels(SERVICE, "provider_to_ingress")
        self._answers: dict[tuple[str, ...], tuple[Counter, LoopHistogram]] = {}
        self._expect()

    def _expect(self) -> None:
        """Create the series of common answers at startup, so that `rate` sees the first increment."""
        for code in REFUSED:
            if code in UNROUTED:
                self._answer(OTHER, OTHER, "refused", code)
                self._answer(OTHER, POST, "refused", code)
            else:
                self._answer(ROUTE, POST, "refused", code)
        for outcome in STATUS:
            if outcome != "unavailable":
                self._answer(ROUTE, POST, outcome, "")
        for code in UNAVAILABLE:
            self._answer(ROUTE, POST, "unavailable", code)

    def verified(self, source: str, *, slot: str, offset_s: float | None) -> None:
        """A delivery was verified with the secret in `slot`; its sender's clock is `offset_s` seconds behind ours."""
        self._verified.get(slot, self._verified["other"]).inc()
        if offset_s is not None:
            self._offsets[source].observe(abs(offset_s))

    def taken(self, delivery: Delivery, mapped: Mapped, *, written_s: float | None) -> None:
        """A delivery is durable: in Kafka `written_s` seconds after its receipt, or on disk."""
        if written_s is not None:
            self._written.observe(written_s)
        if mapped.events and not delivery.origin:
            self._last_event[delivery.source].set(delivery.received_at.timestamp())
        for event in mapped.events:
            age = (event.received_at - event.occurred_at).total_seconds()
            self._age.observe(max(age, 0.0))
            if age < 0:
                self._future.inc()
            if event.type == OTHER_REPORTED:
                self._reported(event)
        for flag in mapped.flags:
            self._flags[flag].inc()
        for event_type, pointer in mapped.extensions:
            word = _bounded(plain_pointer(pointer), self._extensions)
            self._metrics.extension_fields.labels(event_type, word).inc()

    def _reported(self, event: Event) -> None:
        word = _bounded(plain_type(event.value["reported_type"]), self._reported_types)
        self._metrics.other_reported.labels(event.source, word).inc()

    def deferred(self, source: str, cause: str) -> None:
        """The fast path deferred a delivery; `cause` is one of `DEFERRALS`."""
        self._metrics.fast_path_deferrals.labels(source, cause).inc()

    def id_reused(self) -> None:
        """An unsigned id was reused with another body."""
        self._flags["id_reused"].inc()

    def parked(self, source: str, reason: str) -> None:
        """A verified delivery was parked."""
        self._parked[source, reason].inc()
        if reason == "id_conflict":
            self._conflicts[source].inc()

    def unproved(self, source: str, reason: str) -> None:
        """A delivery failed verification."""
        self._metrics.signature_failures.labels(source, reason).inc()

    def answered(
        self, outcome: str, code: str, duration_s: float, request: Observed, *, reason: str = "", event_type: str = ""
    ) -> dict[str, object]:
        """Count an answer, end its span (with `reason` and `event_type`), and return fields for the log."""
        route, method = ROUTE if request.routed else OTHER, POST if request.method == POST else OTHER
        counter, histogram = self._answer(route, method, outcome, code)
        counter.inc()
        histogram.observe(duration_s)
        if outcome != "refused":
            self._metrics.sender_time_budget.observe(duration_s / self._deadline_s)
        duration_ms = round(duration_s * 1000, 2)
        if request.end_span is None:
            return {"duration_ms": duration_ms}
        code = code or reason
        trace_id, is_exported = request.end_span(request.source, outcome=outcome, code=code, event_type=event_type)
        if is_exported:
            histogram.exemplify(duration_s, trace_id)
        return {"duration_ms": duration_ms, "trace_id": trace_id}

    def _answer(self, *key: str) -> tuple[Counter, LoopHistogram]:
        children = self._answers.get(key)
        if children is None:
            route, method, outcome, code = key
            children = self._answers[key] = (
                self._metrics.http_requests.labels(route, method, outcome, code),
                self._metrics.http_request_duration.labels(route, outcome),
            )
        return children


def _bounded(word: str, known: set[str]) -> str:
    """Return a sender's word as a label: itself while `known`, which collects words, is not full, else `other`."""
    if len(known) < WORDS_MAX:
        known.add(word)
    return word if word in known else "…"
