"""Which native deliveries become events, under which key, and why the others are parked."""

import json
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.kafka.routing import RoutingTable
from bridge.mapping.profile import Mapped
from tests.unit.profile_documents import ABSENT, CHANGE, PING, SAMPLES, SENT, event_of, map_body, mapped, member, parked

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


NO_ID = ParkReason("unusable", "bad_id", "/id", KEY)
NO_VERSION = ParkReason("unusable", "bad_version", "/version", KEY)
NO_TYPE = ParkReason("unknown_type", field="/type", key=KEY)
ELSEWHERE = ParkReason("environment_mismatch", field="/environment")
NO_KEY = {"/data/prescription_id": ABSENT}
LONG = "x" * 129
UPDATED = {"/type": '"patient.updated"'}
UPDATES = [
    ({"/data/prescription_id": ABSENT, "/account_id": ABSENT}, ParkReason("unknown_type", field="/type")),
    ({"/data/prescription_id": ABSENT, "/account_id": "true"}, ParkReason("unknown_type", field="/type")),
    ({"/data/prescription_id": ABSENT, "/account_id": '"a b"'}, ParkReason("unusable", "bad_key", "/account_id")),
    ({"/environment": '"production"'}, ParkReason("environment_mismatch", field="/environment", key=KEY)),
    ({"/account_id": ABSENT}, ParkReason("unusable", "missing_field", "/account_id", KEY)),
    ({"/timestamp": '"soon"'}, ParkReason("unusable", "bad_time", "/timestamp", KEY)),
    ({"/data/patient/last_name": "7"}, ParkReason("unusable", "wrong_type", "/data/patient/last_name", KEY)),
    ({"/data": "[]"}, ParkReason("unusable", "wrong_type", "/data")),
]


@pytest.mark.parametrize(
    ("edits", "parks"),
    [
        *(({"/id": text}, NO_ID) for text in ("true", "1.0", "[]", "{}")),
        *(({"/version": text}, NO_VERSION) for text in (ABSENT, "null", "1", "1.0", '"2"', '" 1"', '"1.0"', "true")),
        *(
            ({"/type": text, "/environment": '"production"'}, NO_TYPE)
            for text in (ABSENT, "null", "7", "{}", '["a.b"]', '""', '"a b"', '"a.b\\n"', '"é"', f'"{LONG}"')
        ),
        *(
            ({"/environment": text} | NO_KEY, ELSEWHERE)
            for text in (ABSENT, "null", "{}", "1", '"production"', '"Sandbox"', '"UNKNOWN"')
        ),
        *((UPDATED | edits, parks) for edits, parks in UPDATES),
    ],
)
def test_what_is_not_as_it_must_be_parks_also_of_another_type(edits: dict[str, str], parks: ParkReason) -> None:
    assert parked(SENT, edits) == parks


@pytest.mark.parametrize("word", ["prescription.Sent", "prescription.cancelled", "other.reported", "a", "x" * 128])
def test_an_update_of_another_type_is_reported_in_the_order_of_its_prescription(word: str) -> None:
    outcome = mapped(SENT, {"/type": f'"{word}"', "/data/reported_type": '"said"'})

    (event,) = outcome.events
    assert (event.type, event.key, event.value["prescription_id"]) == ("other.reported", KEY, KEY)
    assert event.value["reported_type"] == word
    assert member(event.value, "/patient")["last_name"] == "Quintero"
    assert event.value["extensions"] == {
        "/data/attempt": "1",
        "/data/delivery_mode": '"erx"',
        "/data/network_status": '{"kind":"status","code":"000"}',
        "/data/reported_type": '"said"',
    }


@pytest.mark.parametrize("text", [ABSENT, "null", '"a b"', '"req:7"', '"q:7"', '""', "true", '{"a":1}'])
def test_an_update_without_a_prescription_is_reported_of_its_account_and_loses_nothing(text: str) -> None:
    (event,) = mapped(SENT, UPDATED | {"/data/prescription_id": text}).events

    assert (event.type, event.key, event.value["prescription_id"]) == ("other.reported", "acct_4021", None)
    kept = None if text in (ABSENT, "null") else text
    assert member(event.value, "/extensions").get("/data/prescription_id") == kept
    assert RoutingTable().topic_of_event(event) == "drx.accounts.v1"


def test_only_what_names_a_person_a_place_or_a_drug_is_required() -> None:
    named = {
        "patient": {"last_name": "Quintero"},
        "prescriber": {"last_name": "Okafor"},
        "pharmacy": {"name": "Maple Street"},
        "medication": {"description": "lisinopril 10 mg"},
    }
    event = event_of(SENT, {f"/data/{name}": json.dumps(record) for name, record in named.items()})

    for name, record in named.items():
        assert {field: said for field, said in member(event.value, f"/{name}").items() if said is not None} == record
    for name, record in named.items():
        (field,) = record
        assert parked(SENT, {f"/data/{name}/{field}": ABSENT}).detail == "missing_field"


@pytest.mark.parametrize(
    ("text", "detail"), [(ABSENT, "missing_field"), ("null", "missing_field"), ("[]", "wrong_type")]
)
def test_a_ping_needs_its_empty_body_none_the_less(text: str, detail: str) -> None:
    assert event_of(PING, {"/data": "{}"}).value["message"] is None
    assert parked(PING, {"/data": text}) == ParkReason("unusable", detail, "/data")


def test_the_first_detail_of_the_list_is_told_wherever_it_stands() -> None:
    """Two readers of a parked record, or two versions of the bridge, must tell the same reason."""
    faults = [
        ({"/data/medication/refills": "2147483648"}, "out_of_range", "/data/medication/refills"),
        ({"/data/patient/first_name": "7", "/data/patient/last_name": "7"}, "wrong_type", "/data/patient/first_name"),
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
        (SENT, "/data/pharmacy/name", "/data/pharmacy/name"),
        (SENT, "/data/attempt", "/data/attempt"),
        (CHANGE, "/data/medications_requested/0/description", "/data/medications_requested/*/description"),
    ],
)
@pytest.mark.parametrize("text", [ABSENT, "null"])
def test_a_required_field_must_be_there_and_not_null(sample: str, pointer: str, path: str, text: str) -> None:
    reason = parked(sample, {pointer: text})

    assert (reason.detail, reason.field) == ("missing_field", path)
