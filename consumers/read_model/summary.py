"""Who and what a prescription is about: from the newest event that says it, since thin events do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from bridge.event import Event
from consumers.lifecycle.facts import Document, Stamp, newest

Said = Mapping[str, Any]


def note_summary(document: Document, event: Event, stamp: Stamp) -> None:
    """Add what the event says of itself, of the people and of the order."""
    value = event.value
    newest(document, "last", stamp, event.type, value.get("account_id"), value.get("environment"))
    for name, take in _PARTS:
        said = value.get(name)
        if said is not None:
            known = document.get(name)
            if known is None or stamp > known[0]:
                document[name] = [stamp, take(said)]


def _itself(said: str) -> str:
    return said


def _patient(said: Said) -> Document:
    return {
        "id": said.get("id"),
        "mrn": said.get("mrn"),
        "name": _name(said),
        "birth_date": _day(said.get("date_of_birth")),
    }


def _prescriber(said: Said) -> Document:
    return {"id": said.get("id"), "npi": said.get("npi"), "name": _name(said)}


def _pharmacy(said: Said) -> Document:
    return {"ncpdp_id": said.get("ncpdp_id"), "name": said.get("name")}


def _medication(said: Said) -> Document:
    return {
        "description": said.get("description"),
        "ndc": said.get("ndc"),
        "dea_schedule": said.get("dea_schedule"),
    }


def _name(said: Said) -> str:
    return f"{said.get('first_name') or ''} {said.get('last_name') or ''}".strip()


def _day(said: object) -> str | None:
    return said.isoformat() if isinstance(said, date) else None


_PARTS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("prescriber_order_number", _itself),
    ("rx_reference_number", _itself),
    ("patient", _patient),
    ("prescriber", _prescriber),
    ("pharmacy", _pharmacy),
    ("medication", _medication),
)
