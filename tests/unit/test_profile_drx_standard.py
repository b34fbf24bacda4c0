"""Which native deliveries become events, under which key, and why the others are parked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.contract.events import EVENT_MODELS
from bridge.event import ParkReason
from bridge.ingress.profiles.profile import Mapped
from tests.unit.profile_documents import (
    ABSENT,
    CHANGE,
    ENROLLMENT,
    PING,
    RENEWAL_UNMATCHED,
    SAMPLES,
    SENT,
    event_of,
    map_body,
    mapped,
    member,
    parked,
)

KEY = "rx_5KX0A1"
ROWS = [
    row
    for row in json.loads((SAMPLES / "manifest.json").read_bytes())
    # What is refused never reaches a profile.
    if row["profile"] == "drx_standard" and row["outcome"] != "refused"
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_every_sample_has_the_outcome_of_the_manifest(row: dict[str, Any]) -> None:
    outcome = map_body((SAMPLES / row["file"]).read_bytes())

    # A profile cannot know ids seen before: a duplicate and an id conflict are events to it.
    if row["outcome"] == "parked" and row["reason"] != "id_conflict":
        assert isinstance(outcome, ParkReason)
        assert outcome.reason == row["reason"]
        assert (outcome.key or "<webhook-id>") == row["kafka_key"]
    else:
        assert isinstance(outcome, Mapped)
        assert [event.key for event in outcome.events] == [row["kafka_key"]]


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("native/*.json")), ids=lambda path: path.stem)
def test_every_native_sample_fills_its_record_without_leniency(sample: Any) -> None:
    outcome = map_body(sample.read_bytes())

    assert isinstance(outcome, Mapped)
    assert (outcome.flags, outcome.extensions) == ((), 0)
    (event,) = outcome.events
    model = EVENT_MODELS[event.type]
    assert list(event.value) == list(model.model_fields)
    assert model.model_validate(dict(event.value)).model_dump() == event.value


def test_the_delivery_says_the_leading_fields_that_it_knows_better() -> None:
    outcome = mapped(SENT, {"/source": '"h2h-east"', "/correlation_id": '"req_7"'}, id="evt_other")

    (event,) = outcome.events
    assert (event.id, event.source, event.type) == ("evt_other", "drx", "prescription.sent")
    assert event.value["event_id"] == "evt_other"
    assert event.value["source"] == "drx"
    assert event.value["origin_source"] == "h2h-east"
    assert event.value["correlation_id"] == "req_7"
    assert event.value["received_at"] == event.received_at
    assert event.value["occurred_at"] == event.occurred_at
    assert event.value["contract_version"] == "1"
    assert outcome.flags == ("id_differs",)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (ABSENT, ()),
        ("null", ()),
        ('"77"', ()),
        ("77", ("integer_as_string_id",)),
        ("78", ("id_differs", "integer_as_string_id")),
        ('""', ("id_differs",)),
    ],
)
def test_the_webhook_id_is_the_event_id_whatever_the_body_says(text: str, flags: tuple[str, ...]) -> None:
    outcome = mapped(SENT, {"/id": text}, id="77")

    assert outcome.events[0].id == "77"
    assert outcome.flags == flags


@pytest.mark.parametrize("text", ["true", "1.0", "[]", "{}"])
def test_an_id_that_is_no_id_parks(text: str) -> None:
    assert parked(SENT, {"/id": text}) == ParkReason("unusable", "bad_id", "/id", KEY)


@pytest.mark.parametrize("text", [ABSENT, "null", "1", "1.0", '"2"', '" 1"', '"1.0"', "true"])
def test_a_version_but_the_string_1_parks(text: str) -> None:
    assert parked(SENT, {"/version": text}) == ParkReason("unusable", "bad_version", "/version", KEY)


@pytest.mark.parametrize("text", [ABSENT, "null", "7", "{}", '["prescription.sent"]', '"prescription.Sent"', '""'])
def test_a_type_outside_the_twenty_parks(text: str) -> None:
    assert parked(SENT, {"/type": text, "/environment": '"production"'}) == ParkReason(
        "unknown_type", field="/type", key=KEY
    )


@pytest.mark.parametrize("text", [ABSENT, "null", "{}", "1", '"production"', '"Sandbox"', '"UNKNOWN"'])
def test_an_environment_but_the_source_s_parks(text: str) -> None:
    assert parked(SENT, {"/environment": text, "/data/prescription_id": ABSENT}) == ParkReason(
        "environment_mismatch", field="/environment"
    )


@pytest.mark.parametrize(
    ("edits", "detail", "field"),
    [
        ({"/data/prescription_id": ABSENT}, "no_key", "/data/prescription_id"),
        ({"/data/prescription_id": "null"}, "no_key", "/data/prescription_id"),
        ({"/data": ABSENT}, "no_key", "/data/prescription_id"),
        ({"/data": "[]"}, "no_key", "/data/prescription_id"),
        *(
            ({"/data/prescription_id": text}, "bad_key", "/data/prescription_id")
            for text in (
                '""',
                "true",
                "1.0",
                "1e3",
                "-0",
                "{}",
                "[]",
                '"a b"',
                '"a/b"',
                '"rx\\n"',
                '"r\u00e9x"',
                '"\uff11"',
                '"rx\\u0000"',
                '"req:rr_1"',
                '"q:1:2"',
                f'"{"x" * 129}"',
            )
        ),
    ],
)
def test_a_prescription_without_a_usable_id_parks(edits: dict[str, str], detail: str, field: str) -> None:
    assert parked(SENT, edits) == ParkReason("unusable", detail, field)


@pytest.mark.parametrize("key", ["x", "A.b_c:d-9", "x" * 128, "request:1", "9223372036854775807"])
def test_a_prescription_id_is_the_key(key: str) -> None:
    event = event_of(SENT, {"/data/prescription_id": f'"{key}"'})

    assert (event.key, event.value["prescription_id"]) == (key, key)


@pytest.mark.parametrize("text", ["50012345", "-5"])
def test_an_integer_prescription_id_is_its_decimal_text(text: str) -> None:
    outcome = mapped(SENT, {"/data/prescription_id": text})

    assert outcome.events[0].key == outcome.events[0].value["prescription_id"] == text
    assert outcome.flags == ("integer_as_string_id",)


@pytest.mark.parametrize("sample", [RENEWAL_UNMATCHED, CHANGE])
@pytest.mark.parametrize(
    ("text", "key"), [('"rr_1"', "req:rr_1"), ("12", "req:12"), (f'"{"r" * 124}"', f"req:{'r' * 124}")]
)
def test_a_request_without_a_prescription_is_keyed_by_itself(sample: str, text: str, key: str) -> None:
    event = event_of(sample, {"/data/prescription_id": "null", "/data/request_id": text})

    assert event.key == key
    assert event.value["prescription_id"] is None


@pytest.mark.parametrize(
    ("edits", "detail", "field"),
    [
        ({"/data/request_id": ABSENT}, "no_key", "/data/prescription_id"),
        ({"/data": "null"}, "no_key", "/data/prescription_id"),
        ({"/data/request_id": '""'}, "bad_key", "/data/request_id"),
        ({"/data/request_id": "false"}, "bad_key", "/data/request_id"),
        ({"/data/request_id": '"a b"'}, "bad_key", "/data/request_id"),
        ({"/data/request_id": f'"{"r" * 125}"'}, "bad_key", "/data/request_id"),
        ({"/data/prescription_id": '""'}, "bad_key", "/data/prescription_id"),
        ({"/data/matched": ABSENT}, "missing_field", "/data/matched"),
    ],
)
def test_an_unusable_request_parks_under_the_webhook_id(edits: dict[str, str], detail: str, field: str) -> None:
    assert parked(RENEWAL_UNMATCHED, edits) == ParkReason("unusable", detail, field, None)


@pytest.mark.parametrize(
    "sample", ["native/10_renewal_responded_approved.json", "native/34_alert_no_confirmation.json"]
)
def test_only_a_request_may_do_without_a_prescription(sample: str) -> None:
    assert parked(sample, {"/data/prescription_id": "null"}).detail == "no_key"


@pytest.mark.parametrize(
    ("text", "detail"),
    [(ABSENT, "no_key"), ("null", "no_key"), ("7", "no_key"), ("{}", "no_key"), ('{"id": ""}', "bad_key")],
)
def test_an_enrollment_is_keyed_by_its_prescriber(text: str, detail: str) -> None:
    assert event_of(ENROLLMENT, {"/data/prescriber/id": '"req:7"'}).key == "req:7"
    assert parked(ENROLLMENT, {"/data/prescriber": text}).detail == detail


def test_a_ping_is_keyed_by_its_account() -> None:
    outcome = mapped(PING, {"/account_id": "4021"})

    assert outcome.events[0].key == outcome.events[0].value["account_id"] == "4021"
    assert parked(PING, {"/account_id": ABSENT}).detail == "no_key"
    assert parked(PING, {"/account_id": '"a b"'}).detail == "bad_key"


@pytest.mark.parametrize(
    ("text", "detail"), [(ABSENT, "missing_field"), ("null", "missing_field"), ("[]", "wrong_type")]
)
def test_a_ping_needs_its_empty_body_none_the_less(text: str, detail: str) -> None:
    assert event_of(PING, {"/data": "{}"}).value["message"] is None
    assert parked(PING, {"/data": text}) == ParkReason("unusable", detail, "/data")


def test_an_account_need_be_a_key_only_for_a_ping() -> None:
    assert event_of(SENT, {"/account_id": '"A & B"'}).value["account_id"] == "A & B"
    assert parked(SENT, {"/account_id": "null"}) == ParkReason("unusable", "missing_field", "/account_id", KEY)
    assert parked(SENT, {"/account_id": "true"}) == ParkReason("unusable", "wrong_type", "/account_id", KEY)


def test_the_first_detail_of_the_list_is_told_wherever_it_stands() -> None:
    """Two readers of a parked record, or two versions of the bridge, must tell the same reason."""
    faults = [
        ({"/data/medication/refills": "2147483648"}, "out_of_range", "/data/medication/refills"),
        ({"/data/patient/first_name": "7"}, "wrong_type", "/data/patient/first_name"),
        ({"/data/network_status/code": ABSENT}, "missing_field", "/data/network_status/code"),
        ({"/version": '"2"'}, "bad_version", "/version"),
        ({"/timestamp": '"last Tuesday"'}, "bad_time", "/timestamp"),
        ({"/id": "[]"}, "bad_id", "/id"),
        ({"/data/prescription_id": '"a b"'}, "bad_key", "/data/prescription_id"),
        ({"/data/prescription_id": "null"}, "no_key", "/data/prescription_id"),
    ]
    edits: dict[str, str] = {}
    for added, detail, field in faults:
        edits |= added
        key = None if detail.endswith("key") else KEY

        assert parked(SENT, edits) == ParkReason("unusable", detail, field, key)


@pytest.mark.parametrize(
    ("sample", "pointer", "path"),
    [
        (SENT, "/data/patient/date_of_birth", "/data/patient/date_of_birth"),
        (SENT, "/data/pharmacy/name", "/data/pharmacy/name"),
        (SENT, "/data/attempt", "/data/attempt"),
        (CHANGE, "/data/medications_requested/0/quantity", "/data/medications_requested/*/quantity"),
    ],
)
@pytest.mark.parametrize("text", [ABSENT, "null"])
def test_a_required_field_must_be_there_and_not_null(sample: str, pointer: str, path: str, text: str) -> None:
    reason = parked(sample, {pointer: text})

    assert (reason.detail, reason.field) == ("missing_field", path)


def test_a_thin_delivery_leaves_the_records_empty() -> None:
    edits = {f"/data/{name}": ABSENT for name in ("patient", "prescriber", "medication")}
    event = event_of(SENT, edits | {"/data/pharmacy": "null"})

    assert [event.value[name] for name in ("patient", "prescriber", "pharmacy", "medication")] == [None] * 4


def test_records_of_two_deliveries_share_nothing() -> None:
    first, second = event_of(SENT), event_of(SENT)

    assert first.value == second.value
    for pointer in ("/patient", "/patient/address", "/extensions"):
        assert member(first.value, pointer) is not member(second.value, pointer)
