"""Events of one prescription for the read model's tests: single facts, and complete histories from the samples."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event
from bridge.mapping.profile import Mapped
from consumers.lifecycle.facts import blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.roll_up import State, roll_up
from consumers.read_model.summary import note_summary
from tests.builders import SAMPLES
from tests.unit.profile_documents import map_body

START = datetime(2026, 9, 14, 15, tzinfo=UTC)
SCENARIOS = sorted(path.stem for path in (SAMPLES / "scenarios").glob("*.ndjson"))

# Required fields that are irrelevant to a test.
_REQUIRED: dict[str, Any] = {
    "network_status": {
        "kind": "status",
        "raw_kind": None,
        "code": "000",
        "description_code": None,
        "description": None,
    },
    "extensions": {},
}


def ago(**span: float) -> float:
    """Minutes from the start of the tests' time to that long before now: the database uses the real clock."""
    return (datetime.now(UTC) - timedelta(**span) - START) / timedelta(minutes=1)


def a_fact(event_type: str, at: float, *, id: str = "", key: str = "rx_1", source: str = "drx", **fields: Any) -> Event:  # noqa: A002 -- the field's name
    """An event `at` minutes after the start; by default its id consists of type and minute."""
    moment = START + timedelta(minutes=at)
    received_at = fields.pop("received_at", moment)
    value = dict.fromkeys(EVENT_MODELS[event_type].model_fields)
    value |= {name: said for name, said in _REQUIRED.items() if name in value}
    identity = id or f"evt_{event_type}_{at}"
    value |= {
        "event_id": identity,
        "event_type": event_type,
        "contract_version": "1",
        "occurred_at": moment,
        "received_at": received_at,
        "source": source,
        "environment": "sandbox",
        "account_id": "acct_4021",
        "prescription_id": key,
        **fields,
    }
    return Event(identity, event_type, source, key, moment, received_at, value)


created = partial(a_fact, "prescription.created")
sent = partial(a_fact, "prescription.sent")
processed = partial(a_fact, "prescription.processed")
failed = partial(a_fact, "prescription.transmission_failed")
cancel_asked = partial(a_fact, "cancel.requested")
cancel_answered = partial(a_fact, "cancel.responded")
renewal_asked = partial(a_fact, "renewal.requested")
renewal_answered = partial(a_fact, "renewal.responded")
renewal_closed = partial(a_fact, "renewal.closed")
change_asked = partial(a_fact, "change.requested")


def filled(at: float, word: str, number: int = 0, **fields: Any) -> Event:
    return a_fact("fill.status_changed", at, fill_number=number, fill_status=word, **fields)


def worked_on(at: float, word: str, queue: str = "q1", **fields: Any) -> Event:
    return a_fact("fulfillment.status_changed", at, queue_id=queue, fulfillment_status=word, **fields)


def shipped(at: float, word: str, tracking: str = "1ZA", **fields: Any) -> Event:
    return a_fact("shipment.status_changed", at, tracking_number=tracking, shipment_status=word, **fields)


def state_of(*events: Event) -> State:
    document = blank()
    for event in events:
        apply(document, event, note=note_summary)
    return roll_up(document)


def native(body: bytes) -> Event:
    outcome = map_body(body)
    assert isinstance(outcome, Mapped)
    (event,) = outcome.events
    return event


def scenario(name: str) -> tuple[list[Event], dict[str, Any]]:
    folder = SAMPLES / "scenarios"
    events = [native(line) for line in (folder / f"{name}.ndjson").read_bytes().splitlines()]
    return events, json.loads((folder / f"{name}.expect.json").read_bytes())["expect"]
