"""Patient, prescriber, pharmacy and medication of a prescription: from the newest event with each."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from bridge.event import Event
from consumers.lifecycle.facts import Document, Stamp, newest

PartFields = Mapping[str, Any]


def note_summary(document: Document, event: Event, stamp: Stamp) -> None:
    """Add the event, and its patient, prescriber, pharmacy and medication."""
    value = event.value
    newest(document, "last", stamp, event.type, value.get("account_id"), value.get("environment"))
    for name, take in _PARTS:
        fields = value.get(name)
        if fields is not None:
            known = document.get(name)
            if known is None or stamp > known[0]:
                document[name] = [stamp, take(fields)]


def _patient(fields: PartFields) -> Document:
    birth_date = _day(fields.get("date_of_birth"))
    return {"id": fields.get("id"), "mrn": fields.get("mrn"), "name": _name(fields), "birth_date": birth_date}


def _prescriber(fields: PartFields) -> Document:
    return {"id": fields.get("id"), "npi": fields.get("npi"), "name": _name(fields)}


def _pharmacy(fields: PartFields) -> Document:
    return {"ncpdp_id": fields.get("ncpdp_id"), "name": fields.get("name")}


def _medication(fields: PartFields) -> Document:
    return {
        "description": fields.get("description"),
        "ndc": fields.get("ndc"),
        "dea_schedule": fields.get("dea_schedule"),
    }


def _name(fields: PartFields) -> str:
    return f"{fields.get('first_name') or ''} {fields.get('last_name') or ''}".strip()


def _day(fields: object) -> str | None:
    return fields.isoformat() if isinstance(fields, date) else None


_PARTS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("prescriber_order_number", str),
    ("rx_reference_number", str),
    ("patient", _patient),
    ("prescriber", _prescriber),
    ("pharmacy", _pharmacy),
    ("medication", _medication),
)
