"""Count, log and respond with the outcome of a request; `bridge/response_codes.py` has all statuses and codes.

The labelled children that most deliveries count are resolved once, so that counting is a single addition.
"""

import math
import random
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import orjson
from prometheus_client import Counter

from bridge.contract.events import OTHER_REPORTED, plain_pointer, plain_type
from bridge.errors import DeliveryRefusedError
from bridge.event import Delivery, Event, ParkReason
from bridge.ingress.call import UNKNOWN, Call, Observed
from bridge.mapping.profile import FLAGS, Mapped
from bridge.response_codes import PARKED, REFUSED, RETRY_AFTER_S, STATUS, UNAVAILABLE, proof_failures
from bridge.runtime.failpoints import hit
from bridge.runtime.http_server import Response
from bridge.runtime.logging import log
from bridge.runtime.metrics import IngressMetrics, LoopHistogram

ROUTE = "/webhooks/{source}"
OTHER = "other"
POST = "POST"
SERVICE = "ingress"
# Maximum number of unknown types, or of unknown fields, used as label values. A sender has a dozen of each; a wrong
# mapping could create any number.
LABEL_VALUES_MAX = 50
# Why the fast path deferred a delivery: it does not conform plainly, or the fast path failed.
DEFERRALS = ("form", "fault")
# Label values for slots; other names count as `other`, to bound the number of values.
SLOT_LABELS = ("current", "previous", "other")
# Refusals before a source was found.
UNROUTED = ("malformed_http", "not_found", "method_not_allowed")
_LINES = {each: f"delivery.{each}" for each in ("accepted", "duplicate", "spooled", "ignored")}
_OPENINGS = {outcome: b'{"outcome":"' + outcome.encode() + b'","id":' for outcome in _LINES}
_REFUSALS = {
    code: Response(
        refusal.status,
        orjson.dumps({"outcome": "refused", "code": code}),
        headers=(("Allow", "POST"),) if code == "method_not_allowed" else (),
    )
    for code, refusal in REFUSED.items()
}


class Observations:
    """Counters of the ingress, one method per event."""

    def __init__(self, metrics: IngressMetrics, *, sources: Iterable[str], deadline_s: float) -> None:
        """Resolve the children of all known labels; `deadline_s` is the deadline of responses."""
        self._metrics = metrics
        self._deadline_s = deadline_s
        names = tuple(sources)
        self._verified = {slot: metrics.signature_verified.labels(slot) for slot in SLOT_LABELS}
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
        self._series: dict[tuple[str, ...], tuple[Counter, LoopHistogram]] = {}
        self._expect()

    def _expect(self) -> None:
        """Create the series of common responses at startup, so that `rate` sees the first increment."""
        for code in REFUSED:
            if code in UNROUTED:
                self._children(OTHER, OTHER, "refused", code)
                self._children(OTHER, POST, "refused", code)
            else:
                self._children(ROUTE, POST, "refused", code)
        for outcome in STATUS:
            if outcome != "unavailable":
                self._children(ROUTE, POST, outcome, "")
        for code in UNAVAILABLE:
            self._children(ROUTE, POST, "unavailable", code)

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

    def unverified(self, source: str, reason: str) -> None:
        """A delivery failed verification."""
        self._metrics.signature_failures.labels(source, reason).inc()

    def answered(
        self, outcome: str, code: str, duration_s: float, request: Observed, *, reason: str = "", event_type: str = ""
    ) -> dict[str, object]:
        """Count a response, end its span (with `reason` and `event_type`), and return fields for the log."""
        route, method = ROUTE if request.routed else OTHER, POST if request.method == POST else OTHER
        counter, histogram = self._children(route, method, outcome, code)
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

    def _children(self, *key: str) -> tuple[Counter, LoopHistogram]:
        children = self._series.get(key)
        if children is None:
            route, method, outcome, code = key
            children = self._series[key] = (
                self._metrics.http_requests.labels(route, method, outcome, code),
                self._metrics.http_request_duration.labels(route, outcome),
            )
        return children


class Responses:
    """Counts and logs each outcome, and returns its response."""

    def __init__(self, observations: Observations) -> None:
        self._observe = observations

    def accepted(self, call: Call, outcome: Literal["accepted", "duplicate", "spooled", "ignored"]) -> Response:
        """Respond to a delivery that became events, or whose type the source ignores."""
        hit("before_answer")
        elapsed = call.elapsed_s
        delivery, mapped = call.delivery, cast("Mapped", call.outcome)
        if outcome not in ("duplicate", "ignored"):
            call.http.trust()
        if outcome != "duplicate":
            self._observe.taken(delivery, mapped, written_s=elapsed if outcome == "accepted" else None)
        event_type, more = _types(mapped)
        log.info(
            _LINES[outcome],
            source=call.source,
            event_id=call.event_id,
            record_key=_keys(mapped.events),
            event_type=event_type,
            **self._observe.answered(outcome, "", elapsed, call, event_type=event_type),
            **more,
        )
        return Response(self._status(call, outcome), _OPENINGS[outcome] + orjson.dumps(delivery.id) + b"}")

    def parked(self, call: Call, park: ParkReason, fresh: bool) -> Response:  # noqa: FBT001 - called positionally by `Webhooks._end`
        """Respond to a parked delivery; `fresh` if it was not parked before."""
        hit("before_answer")
        if fresh:
            call.http.trust()
            self._observe.parked(call.source, park.reason)
        log.warning(
            "delivery.parked",
            source=call.source,
            event_id=call.event_id,
            record_key=park.key or "",
            event_type=UNKNOWN if park.reason == "unknown_type" else "",
            code=park.reason,
            detail=park.detail,
            field=park.field,
            **self._observe.answered("parked", "", call.elapsed_s, call, reason=park.reason),
        )
        body = {"outcome": "parked", "id": call.event_id, "reason": park.reason}
        if park.field:
            body["field"] = park.field  # field names of our code or the mapping file, never content of the delivery
        return Response(self._status(call, "parked"), orjson.dumps(body))

    @staticmethod
    def _status(call: Call, outcome: str) -> int:
        """Return the status for a durable delivery; some senders accept only 200."""
        return STATUS["accepted"] if call.sender.answer_200 else STATUS[outcome]

    def challenged(self, call: Observed, response: Response) -> Response:
        """Respond to a handshake."""
        counted = self._observe.answered("challenged", "", call.elapsed_s, call)
        log.info("delivery.challenged", source=call.source, **counted)
        return response

    def refused(self, call: Observed, exc: DeliveryRefusedError) -> Response:
        """Respond to a request that was refused before parsing."""
        if REFUSED[exc.code].proof:
            self._observe.unverified(call.source, exc.reason)
        log.info(
            "delivery.refused",
            source=call.source,
            code=exc.code,
            reason=exc.reason,
            **self._observe.answered("refused", exc.code, call.elapsed_s, call),
        )
        response = _REFUSALS[exc.code]
        if exc.wait_s:
            return Response(response.status, response.body, headers=(("Retry-After", str(math.ceil(exc.wait_s))),))
        return response

    def unavailable(self, call: Observed, code: str) -> Response:
        """Respond to a delivery that could not be made durable."""
        log.warning(
            "delivery.unavailable",
            source=call.source,
            event_id=call.event_id,
            code=code,
            **self._observe.answered("unavailable", code, call.elapsed_s, call),
        )
        retry_after = str(random.randint(*RETRY_AFTER_S))  # noqa: S311 - spreads load, not for security
        body = orjson.dumps({"outcome": "unavailable", "code": code})
        return Response(STATUS["unavailable"], body, headers=(("Retry-After", retry_after),))


def _types(mapped: Mapped) -> tuple[str, dict[str, object]]:
    """Return the event type for a log line, and fields for leniencies used and an unknown type."""
    events = mapped.events
    more: dict[str, object] = {}
    if mapped.flags:
        more["flags"] = " ".join(mapped.flags)
    if events and events[0].type == OTHER_REPORTED:
        more["reported_type"] = plain_type(events[0].value["reported_type"])
    return events[0].type if events else "", more


def _keys(events: Sequence[Event]) -> str:
    """Return the keys of events, separated by spaces, for a log line."""
    return events[0].key if len(events) == 1 else " ".join(dict.fromkeys(event.key for event in events))


def _bounded(word: str, known: set[str]) -> str:
    """Return a sender's value as a label, or `…` if it is new and `known`, which collects values, is full."""
    if len(known) < LABEL_VALUES_MAX:
        known.add(word)
    return word if word in known else "…"
