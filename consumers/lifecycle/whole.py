"""Keep complete events: the shared fields of a prescription, and the newest event of each subject."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bridge.contract.native import native
from bridge.event import Event
from consumers.lifecycle.facts import NO_ID, Document, Stamp, newest
from consumers.lifecycle.machines import DELIVERED, UNKNOWN, fill_of, is_transient_reject

Fields = dict[str, Any]
"""The member `data` of a native body: JSON types, instants with `Z`, decimals as strings, without nulls."""

# Fields kept once per prescription, from the newest event that has them, since some events omit them.
SHARED = ("patient", "prescriber", "pharmacy", "medication", "prescriber_order_number", "rx_reference_number")
# Fields not repeated per subject. The pharmacy is repeated, since another one may have filled it.
_LEFT_OUT = frozenset({"prescription_id", *SHARED} - {"pharmacy"})
DELIVERIES = "shipment.delivered"
"""Delivered parcels, kept in addition to the newest event of each."""


def note_whole(document: Document, event: Event, stamp: Stamp) -> None:
    """Add an event; commutative and idempotent. Values that are not facts, such as `UNKNOWN`, change nothing."""
    fields = note_shared(document, event, stamp)
    subject = _subject(event)
    if subject is None:
        return
    kept = {name: value for name, value in fields.items() if name not in _LEFT_OUT}
    newest(_of_type(document, event.type), subject, stamp, kept)
    if fields.get("shipment_status") == DELIVERED:
        newest(_of_type(document, DELIVERIES), subject, stamp, kept)


def note_shared(document: Document, event: Event, stamp: Stamp) -> Fields:
    """Add the shared fields of an event, and return all of its fields."""
    fields: Fields = native({**event.value, "extensions": {}})["data"]
    for name in SHARED:
        if name in fields:
            newest(document, name, stamp, fields[name])
    return fields


def shared(document: Document, name: str) -> Any:
    """Return the newest value of one of `SHARED`, or None."""
    known = document.get(name)
    return None if known is None else known[1]


def newest_of(document: Document, event_type: str) -> Mapping[str, tuple[Stamp, Fields]]:
    """Return the newest event of a type for each subject: a request, message, fill, line, parcel or alert."""
    found: Mapping[str, tuple[Stamp, Fields]] = document.get("said", {}).get(event_type, {})
    return found


def _of_type(document: Document, event_type: str) -> Document:
    of_type: Document = document.setdefault("said", {}).setdefault(event_type, {})
    return of_type


def _subject(event: Event) -> str | None:
    """Return the subject of an event; None if the event is not a fact."""
    value = event.value
    if event.type not in _SUBJECTS or is_transient_reject(value):
        return None
    name, word = _SUBJECTS[event.type]
    subject = fill_of(value) if name == "fill_number" else value.get(name)
    return None if value.get(word) == UNKNOWN else NO_ID if subject is None else str(subject)


# The field that identifies the subject, and the field whose value must be known; empty if there is none.
_SUBJECTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "prescription.sent": ("message_id", ""),
        "prescription.processed": ("relates_to_message_id", ""),
        "prescription.transmission_failed": ("relates_to_message_id", ""),
        "renewal.requested": ("request_id", ""),
        "renewal.responded": ("request_id", "decision"),
        "renewal.closed": ("request_id", "reason"),
        "change.requested": ("request_id", ""),
        "change.responded": ("request_id", "decision"),
        "cancel.requested": ("request_id", ""),
        "cancel.responded": ("request_id", "decision"),
        "fill.status_changed": ("fill_number", "fill_status"),
        "fulfillment.status_changed": ("queue_id", "fulfillment_status"),
        "shipment.status_changed": ("tracking_number", "shipment_status"),
        "epcs.signed": ("", ""),
        "epcs.signing_failed": ("", ""),
        "alert.raised": ("alert_id", ""),
    }
)
