"""What an event's order belongs to, and which ids can be no key."""

from __future__ import annotations

import pytest

from bridge.event import ParkReason
from bridge.ingress.json_body import parse
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import Mapped
from tests.unit.profile_documents import (
    ABSENT,
    CHANGE,
    ENROLLMENT,
    PING,
    RENEWAL_UNMATCHED,
    SENT,
    a_delivery,
    edited,
    event_of,
    mapped,
    parked,
)

KEY = "rx_5KX0A1"


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


def test_an_account_need_be_a_key_only_for_a_ping() -> None:
    assert event_of(SENT, {"/account_id": '"A & B"'}).value["account_id"] == "A & B"
    assert parked(SENT, {"/account_id": "null"}) == ParkReason("unusable", "missing_field", "/account_id", KEY)
    assert parked(SENT, {"/account_id": "true"}) == ParkReason("unusable", "wrong_type", "/account_id", KEY)


@pytest.mark.parametrize("prefix", ["req:", "q:", "ds:", "ph:"])
def test_an_id_that_begins_like_the_keys_of_other_sources_parks(prefix: str) -> None:
    """Equal keys of two sources would put two prescriptions into one order."""
    bad = parked(SENT, {"/data/prescription_id": f'"{prefix}1"'})

    assert bad == ParkReason("unusable", "bad_key", "/data/prescription_id")


def test_a_bridge_may_have_more_such_prefixes() -> None:
    body = parse(edited(SENT, {"/data/prescription_id": '"acme:1"'}))
    assert isinstance(body, dict)

    outcome = drx_standard.refusing(("acme:",)).map(a_delivery(), body)

    assert outcome == ParkReason("unusable", "bad_key", "/data/prescription_id")
    assert isinstance(drx_standard.map(a_delivery(), body), Mapped)
