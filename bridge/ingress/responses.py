"""Count, log and answer the outcome of a request; codes and statuses are in `bridge/answers.py`."""

import math
import random
from collections.abc import Sequence
from typing import Literal, cast

import orjson

from bridge.answers import REFUSED, RETRY_AFTER_S, STATUS
from bridge.contract.events import OTHER_REPORTED, plain_type
from bridge.errors import DeliveryRefusedError
from bridge.event import Event, ParkReason
from bridge.ingress.call import Call
from bridge.ingress.observations import UNKNOWN, Observations, Observed
from bridge.mapping.profile import Mapped
from bridge.runtime.failpoints import hit
from bridge.runtime.http import Answer
from bridge.runtime.logging import log

_LINES = {each: f"delivery.{each}" for each in ("accepted", "duplicate", "spooled", "ignored")}
_OPENINGS = {outcome: b'{"outcome":"' + outcome.encode() + b'","id":' for outcome in _LINES}
_REFUSALS = {
    code: Answer(
        refusal.status,
        orjson.dumps({"outcome": "refused", "code": code}),
        headers=(("Allow", "POST"),) if code == "method_not_allowed" else (),
    )
    for code, refusal in REFUSED.items()
}


class Responses:
    """Counts and logs each outcome, and returns its answer."""

    def __init__(self, observations: Observations) -> None:
        self._observe = observations

    def accepted(self, call: Call, outcome: Literal["accepted", "duplicate", "spooled", "ignored"]) -> Answer:
        """Answer a delivery that became events, or whose type the source ignores."""
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
        return Answer(self._status(call, outcome), _OPENINGS[outcome] + orjson.dumps(delivery.id) + b"}")

    def parked(self, call: Call, park: ParkReason, fresh: bool) -> Answer:  # noqa: FBT001 - of `Webhooks._end`
        """Answer a parked delivery; `fresh` if it was not parked before."""
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
            body["field"] = park.field  # words from our code or the mapping file, never text of the delivery
        return Answer(self._status(call, "parked"), orjson.dumps(body))

    @staticmethod
    def _status(call: Call, outcome: str) -> int:
        """Return the status for a durable delivery; some senders accept only 200."""
        return STATUS["accepted"] if call.sender.answer_200 else STATUS[outcome]

    def challenged(self, call: Observed, answer: Answer) -> Answer:
        """Answer a handshake."""
        counted = self._observe.answered("challenged", "", call.elapsed_s, call)
        log.info("delivery.challenged", source=call.source, **counted)
        return answer

    def refused(self, call: Observed, exc: DeliveryRefusedError) -> Answer:
        """Answer a request that was refused before parsing."""
        if REFUSED[exc.code].proof:
            self._observe.unproved(call.source, exc.reason)
        log.info(
            "delivery.refused",
            source=call.source,
            code=exc.code,
            reason=exc.reason,
            **self._observe.answered("refused", exc.code, call.elapsed_s, call),
        )
        answer = _REFUSALS[exc.code]
        if exc.wait_s:
            return Answer(answer.status, answer.body, headers=(("Retry-After", str(math.ceil(exc.wait_s))),))
        return answer

    def unavailable(self, call: Observed, code: str) -> Answer:
        """Answer a delivery that could not be made durable."""
        log.warning(
            "delivery.unavailable",
            source=call.source,
            event_id=call.event_id,
            code=code,
            **self._observe.answered("unavailable", code, call.elapsed_s, call),
        )
        retry_after = str(random.randint(*RETRY_AFTER_S))  # noqa: S311 - spreads load, not for security
        body = orjson.dumps({"outcome": "unavailable", "code": code})
        return Answer(STATUS["unavailable"], body, headers=(("Retry-After", retry_after),))


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
