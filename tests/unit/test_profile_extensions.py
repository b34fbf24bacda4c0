"""What the contract does not know is kept whole, where it stood, and never mistaken for a field of ours."""

from __future__ import annotations

import json

import pytest

from bridge.contract.events import EVENT_MODELS
from tests.unit.profile_documents import CHANGE, CHANGE_RESPONDED, FULFILLMENT, PING, SENT, mapped, parked


def test_an_unknown_member_is_kept_at_its_place() -> None:
    outcome = mapped(
        SENT,
        {
            "/trace": '{"hop": [1, {"a": null}]}',
            "/data/ui_theme": '"dark"',
            "/data/medication/gtin": '"00300000000001"',
            "/data/patient/address/geo": "[42.480, -83.47e0, -0]",
        },
    )

    assert outcome.events[0].value["extensions"] == {
        "/trace": '{"hop":[1,{"a":null}]}',
        "/data/ui_theme": '"dark"',
        "/data/medication/gtin": '"00300000000001"',
        "/data/patient/address/geo": "[42.480,-83.47e0,-0]",
    }
    assert (outcome.extensions, outcome.flags) == (4, ())


def test_a_pointer_names_the_element_and_escapes_the_name() -> None:
    medication = json.loads('{"description":"d","quantity":"1","quantity_unit":"u","refills":0,"sig":"s",'
                            '"substitution_allowed":true,"written_date":"2026-09-14"}')  # fmt: skip
    elements = json.dumps([medication, medication | {"a/b~c*": 1, "": 2}])
    outcome = mapped(CHANGE, {"/data/medications_requested": elements, "/data/*": "3"})

    assert outcome.events[0].value["extensions"] == {
        "/data/medications_requested/1/a~1b~0c*": "1",
        "/data/medications_requested/1/": "2",
        "/data/*": "3",
    }


@pytest.mark.parametrize("text", ["null", "{}", "[]", '""', "false", '"\\u0000\U0001f600/"'])
def test_an_unknown_member_counts_whatever_it_holds(text: str) -> None:
    (kept,) = mapped(SENT, {"/data/new": text}).events[0].value["extensions"].values()  # type: ignore[attr-defined] # a map of strings

    assert json.loads(kept) == json.loads(text)


@pytest.mark.parametrize("name", ["Attempt", "attempt ", "ATTEMPT", "delivery-mode", "PatientID"])
def test_names_are_exact(name: str) -> None:
    event = mapped(SENT, {f"/data/{name}": "9"}).events[0]

    assert event.value["extensions"] == {f"/data/{name}": "9"}
    assert event.value["attempt"] == 1


@pytest.mark.parametrize(
    "pointer",
    [
        "/event_id",
        "/event_type",
        "/contract_version",
        "/occurred_at",
        "/received_at",
        "/origin_source",
        "/prescription_id",
        "/extensions",
        "/data/event_id",
        "/data/source",
        "/data/origin_source",
        "/data/account_id",
        "/data/sequence",
        "/data/extensions",
        "/data/raw_delivery_mode",
        "/data/patient/raw_sex",
        "/data/network_status/raw_kind",
    ],
)
def test_a_name_that_only_the_record_has_is_unknown_in_a_body(pointer: str) -> None:
    """Otherwise a source could write what the bridge vouches for."""
    plain, forged = mapped(SENT).events[0].value, mapped(SENT, {pointer: '"forged"'}).events[0].value

    assert forged == {**plain, "extensions": {pointer: '"forged"'}}


def test_a_raw_word_that_is_a_field_of_the_contract_is_one() -> None:
    event = mapped(FULFILLMENT, {"/data/raw_status": '"TYPED"', "/data/raw_fulfillment_status": '"X"'}).events[0]

    assert (event.value["raw_status"], event.value["raw_fulfillment_status"]) == ("TYPED", None)
    assert event.value["extensions"] == {"/data/raw_fulfillment_status": '"X"'}


def test_a_field_of_another_type_is_unknown() -> None:
    outcome = mapped(PING, {"/data/prescription_id": '"rx_1"', "/data/attempt": "1"})

    assert outcome.events[0].value["prescription_id"] is None
    assert outcome.events[0].value["extensions"] == {"/data/prescription_id": '"rx_1"', "/data/attempt": "1"}


def test_the_keys_of_a_map_are_no_fields() -> None:
    assert mapped(CHANGE_RESPONDED, {"/data/validated": '{"new": "x"}'}).extensions == 0


def test_a_parked_delivery_tells_no_name_of_the_source() -> None:
    """A path in a log comes from the contract alone: a member's name may be a patient's."""
    reason = parked(CHANGE_RESPONDED, {"/data/Marisol": "{}", "/data/validated": '{"Marisol": 1}'})

    assert reason.field == "/data/validated/*"


def test_every_type_keeps_what_it_does_not_know() -> None:
    assert all(list(model.model_fields)[-1] == "extensions" for model in EVENT_MODELS.values())
