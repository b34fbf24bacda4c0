import json
from collections.abc import Mapping
from datetime import time
from typing import Any

import pytest
from rich.console import Console

from bridge.commands.tail_format import Shown
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.registry.loader import bundled
from bridge.registry.masker import JSON_MASK, PEOPLE_MASK, Masker

MARKER = "PHI-MARKER"
SCHEMAS = bundled().schemas()
NOW_MS = 1_789_398_566_535  # 2026-09-14T15:09:26.535Z


def filled(schema: Any, named: dict[str, Any], *, secret: bool = False) -> Any:
    """Make a value of the schema with no field left empty; every leaf below a D or L field is the marker."""
    if isinstance(schema, list):
        return filled(next(branch for branch in schema if branch != "null"), named, secret=secret)
    if isinstance(schema, str):
        schema = named.get(schema, {"type": schema})
    if "name" in schema and "namespace" in schema:
        named[f"{schema['namespace']}.{schema['name']}"] = schema
    if "fields" in schema:
        return {
            each["name"]: filled(each["type"], named, secret=secret or each.get("phi") in {"D", "L"})
            for each in schema["fields"]
        }
    if "items" in schema:
        return [filled(schema["items"], named, secret=secret)]
    if "values" in schema:
        return {MARKER if secret else "name": filled(schema["values"], named, secret=secret)}
    return MARKER if secret else "open"


def a_record(value: Mapping[str, Any] | None, *, record: str = "drx.v1.PrescriptionSent", error: str = "") -> Shown:
    headers = [("ce_type", b"prescription.sent")]
    return Shown(ConsumedRecord("drx.prescriptions.v1", 3, 17, NOW_MS, b"rx_1", b"", headers), record, value, error)


def for_people(shown: Shown) -> str:
    console = Console(width=10_000, color_system=None)
    with console.capture() as capture:
        console.print(shown.lines(), soft_wrap=True)
    return capture.get()


@pytest.mark.parametrize("record", sorted(SCHEMAS))
def test_no_direct_or_linked_field_of_any_record_is_shown(record: str) -> None:
    value = filled(SCHEMAS[record], {})

    as_json = json.dumps(a_record(Masker(SCHEMAS, mask=JSON_MASK).mask(record, value), record=record).document())
    as_text = for_people(a_record(Masker(SCHEMAS, mask=PEOPLE_MASK).mask(record, value), record=record))

    assert MARKER in repr(value)
    assert MARKER not in as_json
    assert MARKER not in as_text
    assert JSON_MASK in as_json
    assert PEOPLE_MASK in as_text


def test_a_record_or_field_without_a_schema_is_masked_whole() -> None:
    masker = Masker(SCHEMAS, mask=JSON_MASK)

    assert masker.mask("drx.v9.Later", {"a": MARKER, "b": {"c": MARKER}}) == {"a": JSON_MASK, "b": JSON_MASK}
    assert masker.mask("drx.v1.SystemPing", {"added_later": MARKER}) == {"added_later": JSON_MASK}


def test_of_linked_information_a_word_of_a_closed_list_is_shown_and_no_other_text() -> None:
    masker = Masker(SCHEMAS, mask=JSON_MASK)
    value = {"fill_status": "dispensed", "raw_fill_status": MARKER, "note": MARKER, "patient": {"sex": "female"}}

    masked = masker.mask("drx.v1.FillStatusChanged", value)

    assert masked == value | dict.fromkeys(("raw_fill_status", "note", "patient"), JSON_MASK)
    assert masker.mask("drx.v1.FillStatusChanged", {"fill_status": MARKER}) == {"fill_status": JSON_MASK}


def test_a_secret_is_found_inside_lists_and_maps_of_records() -> None:
    inner = {"type": "record", "name": "I", "namespace": "x", "fields": [{"name": "s", "type": "string", "phi": "L"}]}
    fields = [
        {"name": "all", "type": {"type": "array", "items": inner}},
        {"name": "by", "type": ["null", {"type": "map", "values": "x.I"}]},
    ]
    masker = Masker({"x.R": {"type": "record", "name": "R", "namespace": "x", "fields": fields}}, mask=JSON_MASK)

    masked = masker.mask("x.R", {"all": [{"s": MARKER}], "by": {"k": {"s": MARKER}}})

    assert masked == {"all": [{"s": JSON_MASK}], "by": {"k": {"s": JSON_MASK}}}


def test_a_value_with_spaces_is_seen_where_it_ends() -> None:
    shown = a_record({"name": "Maple Street", "attempt": 1, "network_status": {"code": "010"}})

    assert 'name="Maple Street" attempt=1 network_status={ code=010 }' in for_people(shown)


def test_the_body_of_a_parked_delivery_is_in_json_as_text_too() -> None:
    value = a_record({"body": b'{"a": 1}\xff'}).document()["value"]

    assert value == {"body": "eyJhIjogMX3/", "body_text": '{"a": 1}\\xff'}
    assert a_record({"body": JSON_MASK}).document()["value"] == {"body": JSON_MASK}


def test_nothing_from_outside_reaches_the_terminal_as_a_command() -> None:
    """A sender that puts an escape sequence into a field must not rewrite the operator's screen."""
    lines = for_people(a_record({"account_id": "a\x1b[2J\x9b\r\nb [red]c[/red]"}))

    assert not any(control in lines for control in "\x1b\x9b\r")
    assert "a\\x1b[2J\\x9b\\r\\nb [red]c[/red]" in lines


@pytest.mark.parametrize("timestamp_ms", [253_402_300_800_000, 2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_has_is_none(timestamp_ms: int) -> None:
    """Other producers write what they like: microseconds, as the time in milliseconds, are the year 57000."""
    shown = Shown(a_record(None).at._replace(timestamp_ms=timestamp_ms))

    assert shown.document()["timestamp"] is None
    assert for_people(shown).startswith("-  drx.prescriptions.v1/3@17")


def test_a_time_of_day_in_another_teams_record_is_shown() -> None:
    shown = a_record({"at": time(1, 2, 3)}, record="other.Opening")

    assert shown.document()["value"] == {"at": "01:02:03"}
    assert "at=01:02:03" in for_people(shown)
