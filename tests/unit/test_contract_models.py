"""The models say what the catalogue says, hold what they promise, and show nothing of a patient."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.contract.common import Address, Medication, Patient, Pharmacy, Prescriber
from bridge.contract.envelope import EventRecord
from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import Record
from tests.unit.profile_documents import FILL, SENT, event_of

CATALOGUE = json.loads((Path(__file__).parents[1] / "data" / "catalogue.json").read_bytes())
TYPES = {entry["type"]: entry for entry in CATALOGUE["events"]}
LEADING = [
    "event_id",
    "event_type",
    "contract_version",
    "occurred_at",
    "received_at",
    "source",
    "origin_source",
    "environment",
    "account_id",
    "prescription_id",
    "sequence",
    "correlation_id",
]


def phi_of(model: type[Record], name: str) -> str | None:
    extra = model.model_fields[name].json_schema_extra
    return str(extra["phi"]) if isinstance(extra, dict) else None


def with_raw(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the fields with a `raw_` one after each that holds an enum."""
    listed = []
    for field in fields:
        listed.append(field)
        if re.match(r"(array<)?enum\{", field["type"]):
            listed.append(field | {"name": f"raw_{field['name']}", "required": False})
    return listed


def test_there_is_a_model_for_each_type_and_no_other() -> None:
    assert list(EVENT_MODELS) == list(TYPES)
    for event_type, model in EVENT_MODELS.items():
        assert model.__name__ == "".join(word.capitalize() for word in re.split(r"[._]", event_type))


@pytest.mark.parametrize("event_type", TYPES)
def test_a_model_has_the_fields_of_the_catalogue_in_their_order(event_type: str) -> None:
    model, entry = EVENT_MODELS[event_type], TYPES[event_type]
    common = CATALOGUE["common_data_fields"][1:] if entry["common"] else []
    own = with_raw(entry["fields"])

    assert list(model.model_fields) == [*LEADING, *(field["name"] for field in common + own), "extensions"]
    for field in common + own:
        name, phi = field["name"], field["phi"]
        assert model.model_fields[name].is_required() == field["required"], name
        assert phi_of(model, name) == (phi if phi in "DL" else None), name
    assert (phi_of(model, "prescription_id"), phi_of(model, "extensions")) == ("L", "D")


@pytest.mark.parametrize("event_type", TYPES)
def test_an_enum_has_the_words_of_the_catalogue_and_unknown(event_type: str) -> None:
    properties = EVENT_MODELS[event_type].model_json_schema()["properties"]

    for field in TYPES[event_type]["fields"]:
        if found := re.search(r"^(?:array<)?enum\{(.*?)\}", field["type"]):
            words = [*found[1].split(","), "UNKNOWN"]
            assert f'"enum": {json.dumps(words)}' in json.dumps(properties[field["name"]])


@pytest.mark.parametrize(
    ("name", "model"),
    [("patient", Patient), ("prescriber", Prescriber), ("pharmacy", Pharmacy), ("medication", Medication)],
)
def test_a_common_record_has_the_fields_of_the_catalogue(name: str, model: type[Record]) -> None:
    (entry,) = (field for field in CATALOGUE["common_data_fields"] if field["name"] == name)
    inner = re.sub(r"enum\{[^}]*\}", "enum", re.sub(r"^record\{|\}$", "", entry["type"]))
    inner = re.sub(r"\([^)]*\)", "", inner)
    expected = []
    for member in inner.split(","):
        member_name, _, kind = member.partition(":")
        expected.append((member_name.rstrip("?"), not member_name.endswith("?")))
        if kind == "enum":
            expected.append((f"raw_{member_name.rstrip('?')}", False))

    assert [(name, field.is_required()) for name, field in model.model_fields.items()] == expected


@pytest.mark.parametrize(("model", "phi"), [(Patient, "D"), (Address, "D"), (Medication, "L")])
def test_every_field_of_a_record_about_a_person_has_its_class(model: type[Record], phi: str) -> None:
    assert {phi_of(model, name) for name in model.model_fields} == {phi}


def test_a_model_is_closed_immutable_and_strict() -> None:
    model, value = EVENT_MODELS["fill.status_changed"], dict(event_of(FILL).value)
    record: Any = model.model_validate(value)

    with pytest.raises(ValidationError, match="frozen"):
        record.fill_number = 2
    for wrong in (
        {"new": "x"},
        {"fill_number": "1"},
        {"fill_number": True},
        {"fill_number": 2**31},
        {"sequence": 2**63},
        {"fill_status": "evaporated"},
        {"quantity_dispensed": "30"},
        {"fill_date": "2026-09-15"},
        {"occurred_at": value["fill_date"]},
        {"account_id": 7},
    ):
        with pytest.raises(ValidationError):
            model.model_validate(value | wrong)


@pytest.mark.parametrize("number", ["1234567890", "0.0001", "1E+9", "NaN", "Infinity"])
def test_a_decimal_must_fit_its_field(number: str) -> None:
    value = dict(event_of(FILL).value)

    with pytest.raises(ValidationError):
        EVENT_MODELS["fill.status_changed"].model_validate(value | {"quantity_dispensed": Decimal(number)})


def test_neither_a_record_nor_its_errors_show_a_person() -> None:
    value = dict(event_of(SENT).value)
    record: Any = EVENT_MODELS["prescription.sent"].model_validate(value)
    with pytest.raises(ValidationError) as caught:
        EVENT_MODELS["prescription.sent"].model_validate(value | {"patient": {"first_name": "Marisol", "last_name": 7}})

    shown = f"{record!r} {record} {record.patient!r} {record.medication} {caught.value}"
    assert record.event_id in shown
    for secret in ("Marisol", "Quintero", "lisinopril", "rx_5KX0A1", "1979"):
        assert secret not in shown


def test_the_leading_fields_are_the_same_for_all() -> None:
    assert list(EventRecord.model_fields) == LEADING
