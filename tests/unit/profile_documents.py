"""Bodies for the profile tests: the samples, and samples with one interesting member."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.event import Delivery, Event, ParkReason
from bridge.mapping import drx_standard
from bridge.mapping.json_body import parse
from bridge.mapping.profile import Mapped
from tests import builders

SAMPLES = builders.SAMPLES
# Later than every sample.
RECEIVED_AT = datetime(2027, 1, 1, tzinfo=UTC)

SENT = "native/03_prescription_sent.json"
RENEWAL_UNMATCHED = "native/08_renewal_requested_unmatched.json"
CHANGE = "native/16_change_requested_generic.json"
CHANGE_RESPONDED = "native/20_change_responded_validated.json"
FILL = "native/24_fill_dispensed.json"
FULFILLMENT = "native/28_fulfillment_on_hold.json"
EPCS = "native/32_epcs_signed.json"
ENROLLMENT = "native/35_prescriber_enrollment_changed.json"
PING = "native/36_system_ping.json"

ABSENT = ""


def a_delivery(body: bytes = b"", *, id: str = "evt_1", received_at: datetime = RECEIVED_AT) -> Delivery:  # noqa: A002 - the attribute's name
    return builders.a_delivery(body, id=id)._replace(received_at=received_at)


def map_body(body: bytes, **delivery: Any) -> Mapped | ParkReason:
    """Parse and map, as the pipeline does; the webhook id is the body's by default."""
    document = parse(body)
    if isinstance(document, ParkReason):
        return document
    body_id = document.get("id")
    delivery.setdefault("id", body_id if isinstance(body_id, str) else "evt_1")
    return drx_standard.map(a_delivery(body, **delivery), document)


def edited(sample: str, edits: Mapping[str, str]) -> bytes:
    """Return the sample's body with members at JSON pointers set to JSON strings, or removed (`ABSENT`)."""
    document = json.loads((SAMPLES / sample).read_bytes())
    texts = {}
    for number, (pointer, text) in enumerate(edits.items()):
        *way, last = pointer.split("/")[1:]
        holder = document
        for step in way:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        if text == ABSENT:
            del holder[last]
        else:
            place = f"\x01{number}\x01"
            holder[int(last) if isinstance(holder, list) else last] = place
            texts[json.dumps(place)] = text
    body = json.dumps(document)
    for place, text in texts.items():
        body = body.replace(place, text)
    return body.encode()


def mapped(sample: str, edits: Mapping[str, str] | None = None, **delivery: Any) -> Mapped:
    outcome = map_body(edited(sample, edits or {}), **delivery)
    assert isinstance(outcome, Mapped), outcome
    return outcome


def event_of(sample: str, edits: Mapping[str, str] | None = None, **delivery: Any) -> Event:
    (event,) = mapped(sample, edits, **delivery).events
    return event


def parked(sample: str, edits: Mapping[str, str], **delivery: Any) -> ParkReason:
    outcome = map_body(edited(sample, edits), **delivery)
    assert isinstance(outcome, ParkReason), outcome
    return outcome


def member(value: object, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        value = value[int(step)] if isinstance(value, list) else value[step]  # type: ignore[index] # records nest freely
    return value


def leaves(value: object, pointer: str = "") -> Iterator[tuple[str, object]]:
    """Yield every scalar or empty container of a parsed document with its JSON pointer."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{pointer}/{index}")
    else:
        yield pointer, value
