"""The six state machines of a prescription: the facts that each event type adds.

Source: docs/contract.md §6. An unknown value (`UNKNOWN`) is kept in the history and does not change a state machine.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from bridge.event import Event
from consumers.lifecycle.facts import NO_ID, Document, Stamp, earlier, later, newest, part, stamp_of

Value = Mapping[str, Any]
Machine = Callable[[Document, Value, Stamp], None]
Note = Callable[[Document, Event, Stamp], None]
"""Stores further data of an event that a consumer needs, such as the patient."""

UNKNOWN = "UNKNOWN"
DELIVERED = "delivered"
REJECTED = "rejected"
FILL_ID = "id:"


def apply(document: Document, event: Event, *, note: Note) -> None:
    """Add an event's facts to the document, in place; commutative and idempotent if `note` is."""
    stamp = stamp_of(event)
    value = event.value
    earlier(document, "first", stamp)
    note(document, event, stamp)
    machine = _MACHINES.get(event.type)
    if machine is not None:
        machine(document, value, stamp)


def _created(document: Document, _value: Value, _stamp: Stamp) -> None:
    document["known"] = True


def _sent(document: Document, value: Value, stamp: Stamp) -> None:
    document["known"] = True
    later(part(document, "messages", value.get("message_id") or NO_ID), "sent", stamp)


def _processed(document: Document, value: Value, stamp: Stamp) -> None:
    later(part(document, "messages", value.get("relates_to_message_id") or NO_ID), "processed", stamp)


def _failed(document: Document, value: Value, stamp: Stamp) -> None:
    message = part(document, "messages", value.get("relates_to_message_id") or NO_ID)
    later(message, "failed", stamp)
    if value.get("retryable") is False:
        earlier(message, "failed_finally", stamp)


def _asked(kind: str, document: Document, value: Value, stamp: Stamp) -> None:
    earlier(part(document, kind, value["request_id"]), "asked", stamp)


def _responded(document: Document, value: Value, stamp: Stamp) -> None:
    decision = value["decision"]
    if decision != UNKNOWN:
        request = part(document, "requests", value["request_id"])
        newest(request, "answer", stamp, decision, value.get("replacement_prescription_id"))


def _closed(document: Document, value: Value, stamp: Stamp) -> None:
    reason = value["reason"]
    if reason != UNKNOWN:
        newest(part(document, "requests", value["request_id"]), "closed", stamp, reason)


def _cancel_responded(document: Document, value: Value, stamp: Stamp) -> None:
    decision = value["decision"]
    if decision == UNKNOWN:
        return
    newest(part(document, "cancels", value["request_id"]), "answer", stamp, decision)
    if decision == "approved":
        earlier(document, "first_approval", stamp)


def _filled(document: Document, value: Value, stamp: Stamp) -> None:
    status = value["fill_status"]
    if status != UNKNOWN:
        newest(document["fills"], fill_of(value), stamp, status)


def fill_of(value: Value) -> str:
    """Return the name of a fill in a document: the source's id with a prefix, else the fill number."""
    fill_id = value.get("fill_id")
    return f"{FILL_ID}{fill_id}" if fill_id else str(value["fill_number"])


def _worked_on(document: Document, value: Value, stamp: Stamp) -> None:
    status = value["fulfillment_status"]
    if status != UNKNOWN and not is_transient_reject(value):
        newest(document["lines"], value["queue_id"], stamp, status)


def is_transient_reject(value: Value) -> bool:
    """Return whether a line is rejected but still active, which is not recorded as a fact."""
    return value.get("fulfillment_status") == REJECTED and value.get("active") is not False


def _shipped(document: Document, value: Value, stamp: Stamp) -> None:
    status = value["shipment_status"]
    if status == UNKNOWN:
        return
    shipments = document["shipments"]
    known = shipments.get(value["tracking_number"])
    # Delivered is final: it outranks every other status, at any time.
    if known is None or (status == DELIVERED, stamp) > (known[1] == DELIVERED, known[0]):
        shipments[value["tracking_number"]] = [stamp, status]


_MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        "prescription.created": _created,
        "prescription.sent": _sent,
        "prescription.processed": _processed,
        "prescription.transmission_failed": _failed,
        "renewal.requested": partial(_asked, "requests"),
        "renewal.responded": _responded,
        "renewal.closed": _closed,
        "change.requested": partial(_asked, "requests"),
        "change.responded": _responded,
        "cancel.requested": partial(_asked, "cancels"),
        "cancel.responded": _cancel_responded,
        "fill.status_changed": _filled,
        "fulfillment.status_changed": _worked_on,
        "shipment.status_changed": _shipped,
    }
)
