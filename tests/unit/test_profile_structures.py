"""Enums, arrays, maps and records: what they take, what they keep beside it, and what parks the event."""

from __future__ import annotations

import pytest

from tests.unit.profile_documents import (
    CHANGE,
    CHANGE_RESPONDED,
    ENROLLMENT,
    EPCS,
    FILL,
    SENT,
    event_of,
    mapped,
    member,
    parked,
)


@pytest.mark.parametrize(
    ("text", "word"),
    [('"evaporated"', "evaporated"), ('""', ""), ('"UNKNOWN"', "UNKNOWN"), ('"Dispensed"', "Dispensed")],
)
def test_a_word_outside_the_list_is_kept_beside_unknown(text: str, word: str) -> None:
    outcome = mapped(FILL, {"/data/fill_status": text})

    value = outcome.events[0].value
    assert (value["fill_status"], value["raw_fill_status"]) == ("UNKNOWN", word)
    assert outcome.flags == ("enum_unknown",)


def test_a_listed_word_has_no_raw_word() -> None:
    value = event_of(FILL, {"/data/fill_status": '"transferred"'}).value

    assert (value["fill_status"], value["raw_fill_status"]) == ("transferred", None)


def test_a_nested_word_is_kept_in_its_own_record() -> None:
    edits = {"/data/patient/sex": '"X"', "/data/network_status/kind": '"nack"', "/data/medication/dea_schedule": '"I"'}
    value = event_of(SENT, edits).value

    assert (member(value, "/patient/sex"), member(value, "/patient/raw_sex")) == ("UNKNOWN", "X")
    assert (member(value, "/network_status/kind"), member(value, "/network_status/raw_kind")) == ("UNKNOWN", "nack")
    assert member(value, "/medication/raw_dea_schedule") == "I"


def test_the_words_outside_the_list_of_an_array_are_kept_in_their_order() -> None:
    outcome = mapped(EPCS, {"/data/factors": '["password", "palm", "otp_soft", "UNKNOWN", "palm"]'})

    value = outcome.events[0].value
    assert value["factors"] == ["password", "UNKNOWN", "otp_soft", "UNKNOWN", "UNKNOWN"]
    assert value["raw_factors"] == ["palm", "UNKNOWN", "palm"]
    assert outcome.flags == ("enum_unknown",)


@pytest.mark.parametrize("text", ["1", "true", "{}", '["II"]'])
def test_a_word_is_only_a_string(text: str) -> None:
    reason = parked(EPCS, {"/data/dea_schedule": text})

    assert (reason.detail, reason.field) == ("wrong_type", "/data/dea_schedule")


@pytest.mark.parametrize(
    ("sample", "pointer", "text", "path"),
    [
        (EPCS, "/data/factors", '"password"', "/data/factors"),
        (EPCS, "/data/factors", '["password", 1]', "/data/factors/*"),
        (EPCS, "/data/factors", '["password", null]', "/data/factors/*"),
        (EPCS, "/data/factors", '[["password"]]', "/data/factors/*"),
        (CHANGE, "/data/sub_codes", "{}", "/data/sub_codes"),
        (CHANGE, "/data/sub_codes", '["B", null]', "/data/sub_codes/*"),
        (CHANGE, "/data/medications_requested", "{}", "/data/medications_requested"),
        (CHANGE, "/data/medications_requested/0", "null", "/data/medications_requested/*"),
        (CHANGE, "/data/medications_requested/0/refills", "true", "/data/medications_requested/*/refills"),
        (CHANGE_RESPONDED, "/data/validated", "[]", "/data/validated"),
        (CHANGE_RESPONDED, "/data/validated", '{"G": 1}', "/data/validated/*"),
        (CHANGE_RESPONDED, "/data/validated", '{"G": null}', "/data/validated/*"),
        (SENT, "/data/patient", "[]", "/data/patient"),
        (SENT, "/data/patient/address", '"12 Birch Ln"', "/data/patient/address"),
    ],
)
def test_a_structure_of_another_kind_parks(sample: str, pointer: str, text: str, path: str) -> None:
    reason = parked(sample, {pointer: text})

    assert (reason.detail, reason.field) == ("wrong_type", path)


def test_arrays_and_maps_are_taken_whole() -> None:
    assert event_of(ENROLLMENT, {"/data/service_levels": "[]"}).value["service_levels"] == []
    assert event_of(CHANGE, {"/data/sub_codes": '["", "B"]'}).value["sub_codes"] == ["", "B"]
    validated = event_of(CHANGE_RESPONDED, {"/data/validated": '{"": "x", "~/*": ""}'}).value["validated"]
    assert validated == {"": "x", "~/*": ""}
