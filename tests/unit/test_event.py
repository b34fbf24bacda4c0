"""The interface of an event for handlers: the model of its type, and JSON."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event, instant
from bridge.registry.loader import read_schemas, schemas_root
from bridge.registry.schemas import expand
from tests.builders import codec
from tests.unit.schema_corpus import values

SCHEMAS = read_schemas(schemas_root())
WHEN = datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)


def an_event(event_type: str, value: dict[str, Any]) -> Event:
    return Event("evt_1", event_type, "drx", "rx_1", WHEN, WHEN, value)


@pytest.mark.parametrize("event_type", EVENT_MODELS)
@settings(max_examples=4, deadline=None)
@given(drawn=st.data())
def test_a_decoded_event_is_given_as_the_model_of_its_type(event_type: str, drawn: st.DataObject) -> None:
    model = EVENT_MODELS[event_type]
    record = f"drx.v1.{model.__name__}"
    value = drawn.draw(values(expand(SCHEMAS[record])))

    event = an_event(event_type, codec().decode(codec().encode(record, value)).value)
    typed = event.typed()
    assert type(typed) is model
    assert typed.model_dump() == dict(event.value)
    assert json.loads(event.to_json()).keys() == event.value.keys()


def test_times_are_in_utc_and_end_with_z() -> None:
    assert instant(WHEN) == "2026-09-14T15:09:26.000000Z"
    assert an_event("system.ping", {"occurred_at": WHEN}).to_json() == '{"occurred_at":"2026-09-14T15:09:26Z"}'


def test_a_value_that_does_not_fit_is_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        an_event("prescription.created", {"patient": "Ada Lovelace"}).typed()

    assert "Lovelace" not in str(caught.value)
