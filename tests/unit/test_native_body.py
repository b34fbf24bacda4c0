"""The body written for an event maps to the same event."""

from typing import Any, cast

import orjson
import pytest

from bridge.contract.events import EVENT_MODELS
from bridge.contract.native import native_json
from bridge.event import Event
from bridge.mapping import drx_standard
from bridge.mapping.json_body import parse
from bridge.mapping.profile import Mapped
from consumers.testing import an_event
from tests.builders import codec
from tests.unit.profile_documents import CHANGE, SAMPLES, a_delivery, edited, map_body

# Everything that bodies say: the samples, and those that break a rule only mildly.
ACCEPTED = [
    path
    for path in sorted([*SAMPLES.glob("native/*.json"), *SAMPLES.glob("edge/*.json"), *SAMPLES.glob("hostile/*.json")])
    if isinstance(map_body(path.read_bytes()), Mapped)
]


def map_again(event: Event) -> Event:
    delivery = a_delivery(id=event.id, received_at=event.received_at)._replace(
        source=event.source, environment=str(event.value["environment"])
    )
    body = parse(native_json(event.value))
    assert isinstance(body, dict), body
    outcome = drx_standard.map(delivery, body)
    assert isinstance(outcome, Mapped), outcome
    return outcome.events[0]


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_sample_is_mapped_again_to_the_same_event(path: Any) -> None:
    (event,) = cast("Mapped", map_body(path.read_bytes())).events

    assert map_again(event) == event


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_the_body_of_a_decoded_record_is_that_of_the_event(event_type: str) -> None:
    """A consumer has what Avro gives back, the ingress what the profile gave."""
    event = an_event(event_type)
    name = f"drx.v1.{EVENT_MODELS[event_type].__name__}"

    assert native_json(codec().decode(codec().encode(name, event.value)).value) == native_json(event.value)
    assert map_again(event).value == event.value


def test_what_the_contract_does_not_know_stands_where_the_sender_had_it() -> None:
    edits = {"/x": "1.50", "/data/a~1b~0": "[1e2,null]", "/data/raw_change_code": '"G"', "/extensions": "{}"}
    outcome = map_body(edited(CHANGE, edits))
    assert isinstance(outcome, Mapped)
    event = outcome.events[0]

    text = native_json(event.value)

    assert b'"x":1.50' in text
    assert b'"a~1b~0":[1e2,null]' in text
    assert b'"raw_change_code":"G"' in text
    assert map_again(event) == event


@pytest.mark.parametrize(
    "pointer", ["/id", "/data/patient/id", "/data", "/data/patient", "/0/Drug", "/Patient/SSN", "/data/note/x", "", "x"]
)
def test_a_vendors_word_never_becomes_a_field_of_the_contract(pointer: str) -> None:
    plain = an_event("prescription.sent", patient={"first_name": "Ann"})
    event = an_event(
        "prescription.sent",
        id=plain.id,
        patient={"first_name": "Ann"},
        extensions={pointer: '"of a vendor"', "/free": "1"},
    )

    body = orjson.loads(native_json(event.value))

    assert body.pop("extensions") == {pointer: "of a vendor", "/free": 1}
    assert body == orjson.loads(native_json(plain.value))


CANARY = "CANARY"


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_without_health_information_only_the_key_is_left_of_it(event_type: str) -> None:
    event = an_event(event_type, key="rx_1", correlation_id=f"rr_{CANARY}", extensions={"/x": f'"{CANARY}"'})
    body = orjson.loads(native_json(event.value, phi=False))
    whole = orjson.loads(native_json(event.value))

    assert CANARY not in orjson.dumps(body).decode()
    assert body["id"] == event.id
    if event.value["prescription_id"] is not None:
        assert body["data"]["prescription_id"] == event.key
    model = EVENT_MODELS[event_type]
    for name in body["data"]:
        extra: Any = model.model_fields[name].json_schema_extra
        assert name == "prescription_id" or not (extra and extra.get("phi"))
        assert name in whole["data"]
