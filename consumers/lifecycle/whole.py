"""Keep events whole: the shared fields of a prescription, and the newest event of each subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from bridge.contract.native import native
from bridge.event import Event
from consumers.lifecycle.facts import NO_ID, Document, Stamp, newest
from consumers.lifecycle.machines import DELIVERED, REJECTED, UNKNOWN

Fields = dict[str, Any]
"""The member `data` of a native body: JSON types, instants with `Z`, decimals as text, nothing that is null."""

# Kept once per prescription, from the newest event that has them: thin events do not.
SHARED = ("patient", "prescriber", "pharmacy", "medication", "prescriber_order_number", "rx_reference_number")
# Not repeated per subject. The pharmacy is: another one may have filled it.
_LEFT_OUT = frozenset({"prescription_id", *SHARED} - {"pharmacy"})
DELIVERIES = "shipment.delivered"
"""Delivered parcels, kept beside the newest event of each."""

_Subject = Callable[[Mapping[str, Any]], str | None]


def note_whole(document: Document, event: Event, stamp: Stamp) -> None:
    """Add an event; commutative and idempotent.

    A word that is no fact (`UNKNOWN`, or the reject of an active line) changes nothing of its subject.
    """
    fields = note_shared(document, event, stamp)
    subject = _SUBJECTS[event.type](event.value) if event.type in _SUBJECTS else None
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


def _sent(value: Mapping[str, Any]) -> str:
    return value.get("message_id") or NO_ID


def _about_message(value: Mapping[str, Any]) -> str:
    return value.get("relates_to_message_id") or NO_ID


def _request(value: Mapping[str, Any]) -> str:
    request: str = value["request_id"]
    return request


def _answer(value: Mapping[str, Any]) -> str | None:
    return None if value["decision"] == UNKNOWN else value["request_id"]


def _closing(value: Mapping[str, Any]) -> str | None:
    return None if value["reason"] == UNKNOWN else value["request_id"]


def _fill(value: Mapping[str, Any]) -> str | None:
    return None if value["fill_status"] == UNKNOWN else str(value["fill_number"])


def _line(value: Mapping[str, Any]) -> str | None:
    word, queue = value["fulfillment_status"], value["queue_id"]
    return None if word == UNKNOWN or (word == REJECTED and value.get("active") is not False) else queue


def _parcel(value: Mapping[str, Any]) -> str | None:
    return None if value["shipment_status"] == UNKNOWN else value["tracking_number"]


def _alert(value: Mapping[str, Any]) -> str:
    alert: str = value["alert_id"]
    return alert


def _signature(_value: Mapping[str, Any]) -> str:
    return NO_ID


_SUBJECTS: Mapping[str, _Subject] = MappingProxyType(
    {
        "prescription.sent": _sent,
        "prescription.processed": _about_message,
        "prescription.transmission_failed": _about_message,
        "renewal.requested": _request,
        "renewal.responded": _answer,
        "renewal.closed": _closing,
        "change.requested": _request,
        "change.responded": _answer,
        "cancel.requested": _request,
        "cancel.responded": _answer,
        "fill.status_changed": _fill,
        "fulfillment.status_changed": _line,
        "shipment.status_changed": _parcel,
        "epcs.signed": _signature,
        "epcs.signing_failed": _signature,
        "alert.raised": _alert,
    }
)
