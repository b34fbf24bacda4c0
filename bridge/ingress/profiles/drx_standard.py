"""Native DRx, contract v1: one body, one event.

Source: docs/contract.md §3 (the event) and §2 (which reason comes first).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import cast

from bridge.contract.envelope import VERSION, EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS
from bridge.event import AHEAD_MAX, Delivery, Event, ParkReason
from bridge.ingress.profiles.keys import KEY_RULES, KeyRule, prescription_key, readable_prescription
from bridge.ingress.profiles.plan import (
    Detail,
    Members,
    Pass,
    blank_record,
    compile_members,
    put_nothing,
    put_text,
    read_instant,
    text_of_id,
)
from bridge.ingress.profiles.profile import Mapped


@dataclass(frozen=True, slots=True)
class Plan:
    """All that depends on the type of an event.

    Attributes:
        blank: The record with nothing read but what every event of the type says.
        key: Finds the record's key.
        members: The members of `data`.
    """

    blank: dict[str, object]
    key: KeyRule
    members: Members


_LEADING = frozenset(EventRecord.model_fields)
# Leading fields that no member of the body fills by its own name: ours, renamed, or read from `data`.
_NOT_IN_ENVELOPE = _LEADING - {"account_id", "sequence", "correlation_id"}
# Members of the body that `map` reads itself, since each has a reason or a detail of its own.
_READ_APART = ("id", "type", "version", "timestamp", "environment", "data")


def _compile_envelope() -> Members:
    members = compile_members(EventRecord, "", without=_NOT_IN_ENVELOPE)
    apart = dict.fromkeys(_READ_APART, put_nothing)
    # `source` in the record is the configured sender; which platform instance spoke is its origin.
    return Members("", {**members.puts, **apart, "source": put_text("origin_source", "/source")}, members.required)


def _compile_plan(event_type: str, model: type[EventRecord]) -> Plan:
    without = _LEADING | {"extensions"}
    if issubclass(model, PrescriptionRecord):
        without -= {"prescription_id"}
    blank = blank_record(model) | {"event_type": event_type, "contract_version": VERSION}
    key = KEY_RULES.get(event_type, prescription_key)
    return Plan(blank, key, compile_members(model, "/data", without=without))


_ENVELOPE = _compile_envelope()
_PLANS: Mapping[str, Plan] = MappingProxyType(
    {event_type: _compile_plan(event_type, model) for event_type, model in EVENT_MODELS.items()}
)
_read_timestamp = read_instant("/timestamp", wrong=Detail.BAD_TIME, beyond=Detail.BAD_TIME)


def map(delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:  # noqa: A001 - the seam's name
    """Turn a native delivery into its one event, or say why it holds none; see `Profile.map`."""
    event_type = document.get("type")
    plan = _PLANS.get(event_type) if type(event_type) is str else None
    if plan is None:
        return ParkReason("unknown_type", field="/type", key=readable_prescription(document))
    if document.get("environment") != delivery.environment:
        return ParkReason("environment_mismatch", field="/environment", key=readable_prescription(document))
    run = Pass()
    value = plan.blank.copy()
    key = plan.key(document, run)
    _read_envelope(delivery, document, value, run)
    body = document.get("data")
    if type(body) is dict:
        plan.members.read(body, value, run)
    else:
        run.fault(Detail.MISSING_FIELD if body is None else Detail.WRONG_TYPE, "/data")
    if run.worst is not None:
        return ParkReason("unusable", run.worst.name.lower(), run.field, readable_prescription(document))
    event = Event(
        id=delivery.id,
        type=cast("str", event_type),
        source=delivery.source,
        key=key,
        occurred_at=cast("datetime", value["occurred_at"]),
        received_at=delivery.received_at,
        value=value,
    )
    if event.occurred_at - event.received_at > AHEAD_MAX:
        run.flags.add("timestamp_ahead")
    return Mapped((event,), tuple(sorted(run.flags)), len(run.extensions))


def _read_envelope(delivery: Delivery, document: dict[str, object], value: dict[str, object], run: Pass) -> None:
    """Fill the leading fields, from the delivery where it knows better than the body."""
    _compare_id(document.get("id"), delivery.id, run)
    value["event_id"] = delivery.id
    value["occurred_at"] = _read_timestamp(document.get("timestamp"), run)
    value["received_at"] = delivery.received_at
    value["source"] = delivery.source
    value["environment"] = delivery.environment
    value["extensions"] = run.extensions
    if document.get("version") != VERSION:
        run.fault(Detail.BAD_VERSION, "/version")
    _ENVELOPE.read(document, value, run)


def _compare_id(item: object, webhook_id: str, run: Pass) -> None:
    """Note where the body's id is not the delivery's: the header is what a sender keeps on a retry, so it wins."""
    if item is None or item == webhook_id:
        return
    text = text_of_id(item)
    if text is None:
        run.fault(Detail.BAD_ID, "/id")
        return
    if type(item) is int:
        run.flags.add("integer_as_string_id")
    if text != webhook_id:
        run.flags.add("id_differs")
