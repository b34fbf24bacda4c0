"""Fields of a native delivery: accepted, accepted with a flag, kept in extensions, or parked."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bridge.event import AHEAD_MAX, ParkReason
from tests.unit.profile_documents import (
    ABSENT,
    CHANGE,
    CHANGE_RESPONDED,
    ENROLLMENT,
    EPCS,
    FILL,
    FULFILLMENT,
    PING,
    RECEIVED_AT,
    RENEWAL_UNMATCHED,
    SENT,
    event_of,
    mapped,
    member,
    parked,
)


def detail_of(sample: str, edits: dict[str, str]) -> tuple[str, str, str]:
    reason = parked(sample, edits)
    return reason.reason, reason.detail, reason.field


NO_TEXT = ("1", "1.5", "true", "{}", "[]")
NO_INTEGER = (
    *("1.9", "3.0", "1e2", "-0", "true", "[1]", '""', '" 1"', '"1\\n"', '"+1"', '"-1"', '"1_000"'),
    *('"1.0"', '"\uff11"', '"\u0661"', '"0x10"', '"0000000000000000001"'),
)
NO_DECIMAL = (
    *('""', '"+1"', '".5"', '"5."', '"1e3"', '"1,5"', '" 1"', '"1\\n"', '"NaN"', '"Infinity"'),
    *('"\uff11"', '"1_0"', '"--1"', "true", "[]", "{}"),
)
NO_DAY = (
    *('""', '"2026-02-29"', '"2026-13-01"', '"2026-9-1"', '"20260914"', '"2026-W38-1"'),
    *('"2026-09-14T00:00:00Z"', '" 2026-09-14"', '"2026-09-14\\n"', '"\uff12026-09-14"', "20260914"),
    *("1.5", "true", "[]"),
)
NO_TIMESTAMP = (
    *("", "null", "true", "[]", "{}", '""', '"last Tuesday"', '"1789398566"', '"2026-09-14"'),
    *('"2026-09-14T15:09Z"', '"2026-09-14T15:09:26,5Z"', '"2026-09-14T15:09:26.Z"', '"2026-09-14T15:09:26 Z"'),
    *('"2026-09-14T15:09:26Z\\n"', '"20260914T150926Z"', '"2026-W38-1T15:09:26Z"', '"2026-02-29T00:00:00Z"'),
    *('"2026-13-01T00:00:00Z"', '"2026-09-14T24:00:00Z"', '"2026-09-14T15:60:00Z"', '"2026-09-14T15:09:61Z"'),
    *('"2026-09-14T15:09:26+24:00"', '"2026-09-14T15:09:26+05:60"', '"2026-09-14T15:09:26+0530"'),
    *('"2026-09-14T15:09:26+05:30:15"', '"\uff12026-09-14T15:09:26Z"', '"0000-01-01T00:00:00Z"'),
    *('"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-01:00"', '"9999-12-31T23:59:60Z"', "253402300800000"),
    *("-62135596800001", "9223372036854775807", "-9223372036854775808", "1e300", "-1e300"),
)
QUANTITY, DAY = (FILL, "/data/quantity_dispensed"), (FILL, "/data/fill_date")
FILL_ID = (FILL, "/data/fill_id")


@pytest.mark.parametrize(
    ("sample", "pointer", "text", "detail"),
    [
        *((SENT, "/source", text, "wrong_type") for text in NO_TEXT),
        *((SENT, "/data/medication/sig", text, "wrong_type") for text in NO_TEXT),
        *((SENT, "/data/patient/address/line2", text, "wrong_type") for text in NO_TEXT),
        *((SENT, "/data/attempt", text, "wrong_type") for text in NO_INTEGER),
        (SENT, "/data/attempt", "2147483648", "out_of_range"),
        *((*QUANTITY, text, "wrong_type") for text in NO_DECIMAL),
        *(
            (*QUANTITY, text, "out_of_range")
            for text in ('"1000000000"', '"999999999.9995"', "1e308", f'"{"9" * 100_000}"')
        ),
        *((*DAY, text, "wrong_type") for text in NO_DAY),
        (*DAY, '"0000-01-01"', "out_of_range"),
        *((*FILL_ID, text, "wrong_type") for text in ("true", "1.5", "[]")),
        (*FILL_ID, f'"{"é" * 65}"', "out_of_range"),
        *((SENT, "/timestamp", text, "bad_time") for text in NO_TIMESTAMP),
    ],
    ids=lambda value: value[:30],
)
def test_a_value_is_never_guessed(sample: str, pointer: str, text: str, detail: str) -> None:
    assert detail_of(sample, {pointer: text}) == ("unusable", detail, pointer)


@pytest.mark.parametrize(
    ("sample", "pointer"),
    [
        (SENT, "/correlation_id"),
        (SENT, "/data/message_id"),
        (SENT, "/data/patient/id"),
        (SENT, "/data/pharmacy/ncpdp_id"),
        (FULFILLMENT, "/data/queue_id"),
        (FILL, "/data/transferred_to_ncpdp_id"),
        FILL_ID,
    ],
)
def test_an_id_may_be_an_integer(sample: str, pointer: str) -> None:
    outcome = mapped(sample, {pointer: "9223372036854775807"})

    assert member(outcome.events[0].value, pointer.removeprefix("/data")) == "9223372036854775807"
    assert outcome.flags == ("integer_as_string_id",)
    assert member(event_of(sample, {pointer: f'"{"é" * 64}"'}).value, pointer.removeprefix("/data")) == "é" * 64
    for text in ("1.0", "-0", "true", "[1]"):
        assert detail_of(sample, {pointer: text}) == ("unusable", "wrong_type", pointer)


@pytest.mark.parametrize(
    ("pointer", "text", "number", "flags"),
    [
        ("/data/attempt", "2147483647", 2147483647, ()),
        ("/data/attempt", '"007"', 7, ("string_as_integer",)),
        ("/sequence", "9223372036854775807", 9223372036854775807, ()),
        ("/sequence", "-9223372036854775808", -9223372036854775808, ()),
        ("/sequence", '"999999999999999999"', 999999999999999999, ("string_as_integer",)),
    ],
)
def test_an_integer_may_be_digits(pointer: str, text: str, number: int, flags: tuple[str, ...]) -> None:
    outcome = mapped(SENT, {pointer: text})

    assert member(outcome.events[0].value, pointer.removeprefix("/data")) == number
    assert outcome.flags == flags


@pytest.mark.parametrize(
    ("text", "number", "flags"),
    [
        ('"30"', "30.000", ()),
        ('"999999999.999"', "999999999.999", ()),
        ('"0.0005"', "0.000", ("decimal_rounded",)),
        ('"0.00050000000000000000000000000000001"', "0.001", ("decimal_rounded",)),
        ("2.5", "2.500", ("decimal_from_number",)),
        ("3e1", "30.000", ("decimal_from_number",)),
        ("0e999999999999999999999999", "0.000", ("decimal_from_number",)),
        (f'"1.{"3" * 100_000}"', "1.333", ("decimal_rounded",)),
        (f"0.{'0' * 100_000}15e100001", "1.500", ("decimal_from_number",)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_decimal_is_exact_or_rounded_half_even_and_flagged(text: str, number: str, flags: tuple[str, ...]) -> None:
    outcome = mapped(FILL, {"/data/quantity_dispensed": text})

    quantity = outcome.events[0].value["quantity_dispensed"]
    assert isinstance(quantity, Decimal)
    assert quantity == Decimal(number)
    assert quantity.as_tuple().exponent == -3
    assert outcome.flags == flags


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type] # the parts of a datetime, in its order


@pytest.mark.parametrize(
    ("text", "moment", "flags"),
    [
        ('"2026-09-14T15:09:26.535000Z"', at(2026, 9, 14, 15, 9, 26, 535000), ()),
        ('"2026-09-14t15:09:26z"', at(2026, 9, 14, 15, 9, 26), ()),
        ('"2026-09-14T01:09:26.1+05:30"', at(2026, 9, 13, 19, 39, 26, 100000), ()),
        ('"2026-09-14T15:09:26-23:59"', at(2026, 9, 15, 15, 8, 26), ()),
        ('"0001-01-01T00:00:00Z"', at(1, 1, 1), ()),
        ('"2026-09-14T15:09:26"', at(2026, 9, 14, 15, 9, 26), ("instant_naive",)),
        ('"2026-09-14T15:09:26.1234569Z"', at(2026, 9, 14, 15, 9, 26, 123456), ("instant_truncated",)),
        (f'"2026-09-14T15:09:26.{"9" * 50_000}Z"', at(2026, 9, 14, 15, 9, 26, 999999), ("instant_truncated",)),
        ('"2016-12-31T23:59:60Z"', at(2017, 1, 1), ("leap_second",)),
        ("2147483648", at(2038, 1, 19, 3, 14, 8), ("instant_epoch", "timestamp_ahead")),
        ('"2038-01-19T03:14:08Z"', at(2038, 1, 19, 3, 14, 8), ("timestamp_ahead",)),
        ('"2026-03-29T02:30:00+01:00"', at(2026, 3, 29, 1, 30), ()),  # an hour that clocks there leave out
        ("-1", at(1969, 12, 31, 23, 59, 59), ("instant_epoch",)),
        ("1789398566", at(2026, 9, 14, 15, 9, 26), ("instant_epoch",)),
        ("1789398566.535", at(2026, 9, 14, 15, 9, 26, 535000), ("instant_epoch",)),
        ("1789398566535", at(2026, 9, 14, 15, 9, 26, 535000), ("instant_epoch",)),
        ("1789398566.1234567", at(2026, 9, 14, 15, 9, 26, 123456), ("instant_epoch", "instant_truncated")),
        ("0e99999999999999999999", at(1970, 1, 1), ("instant_epoch",)),
        (f"0.{'3' * 100_000}", at(1970, 1, 1, 0, 0, 0, 333333), ("instant_epoch", "instant_truncated")),
        ("253402300799999.999", at(9999, 12, 31, 23, 59, 59, 999999), ("instant_epoch", "timestamp_ahead")),
        ("100000000000", at(1973, 3, 3, 9, 46, 40), ("instant_epoch",)),
        ("-100000000000", at(1966, 10, 31, 14, 13, 20), ("instant_epoch",)),
    ],
    ids=lambda value: str(value)[:36],
)
def test_an_instant_comes_out_in_utc(text: str, moment: datetime, flags: tuple[str, ...]) -> None:
    outcome = mapped(SENT, {"/timestamp": text})

    occurred_at = outcome.events[0].occurred_at
    assert (occurred_at, occurred_at.tzinfo) == (moment, UTC)
    assert outcome.flags == flags


def test_an_instant_ahead_of_the_receipt_is_kept_and_clamped_for_order_only() -> None:
    late, last = RECEIVED_AT + timedelta(days=400), RECEIVED_AT + AHEAD_MAX
    outcome = mapped(SENT, {"/timestamp": f'"{late.isoformat()}"'})

    (event,) = outcome.events
    assert event.value["occurred_at"] == event.occurred_at == late
    assert event.ordering_time == last
    assert outcome.flags == ("timestamp_ahead",)
    assert mapped(SENT, {"/timestamp": f'"{last.isoformat()}"'}).flags == ()


@pytest.mark.parametrize(
    ("text", "word"),
    [('"evaporated"', "evaporated"), ('""', ""), ('"UNKNOWN"', "UNKNOWN"), ('"Dispensed"', "Dispensed")],
)
def test_a_word_outside_the_list_is_kept_beside_unknown(text: str, word: str) -> None:
    outcome = mapped(FILL, {"/data/fill_status": text})

    value = outcome.events[0].value
    assert (value["fill_status"], value["raw_fill_status"]) == ("UNKNOWN", word)
    assert outcome.flags == ("enum_unknown",)


def test_the_words_outside_the_list_of_an_array_are_kept_in_their_order() -> None:
    value = event_of(EPCS, {"/data/factors": '["password", "palm", "UNKNOWN", "eye", "palm"]'}).value

    assert value["factors"] == ["password", *["UNKNOWN"] * 4]
    assert value["raw_factors"] == ["palm", "UNKNOWN", "eye", "palm"]


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


@pytest.mark.parametrize(
    "pointer",
    [
        *("/event_id", "/event_type", "/contract_version", "/occurred_at", "/received_at", "/origin_source"),
        *("/prescription_id", "/extensions", "/data/event_id", "/data/source", "/data/origin_source"),
        *("/data/account_id", "/data/sequence", "/data/extensions", "/data/raw_delivery_mode"),
        *("/data/patient/raw_sex", "/data/network_status/raw_kind"),
    ],
)
def test_a_name_that_only_the_record_has_is_unknown_in_a_body(pointer: str) -> None:
    """Otherwise a source could write what the bridge vouches for."""
    plain, forged = mapped(SENT).events[0].value, mapped(SENT, {pointer: '"forged"'}).events[0].value

    assert forged == {**plain, "extensions": {pointer: '"forged"'}}


KEY = "rx_5KX0A1"


@pytest.mark.parametrize(
    ("sample", "edits", "detail", "field"),
    [
        (SENT, {"/data/prescription_id": ABSENT}, "no_key", "/data/prescription_id"),
        (SENT, {"/data/prescription_id": "null"}, "no_key", "/data/prescription_id"),
        (SENT, {"/data": ABSENT}, "no_key", "/data/prescription_id"),
        (SENT, {"/data": "[]"}, "no_key", "/data/prescription_id"),
        *(
            (SENT, {"/data/prescription_id": text}, "bad_key", "/data/prescription_id")
            for text in (
                *('""', "true", "1.0", "1e3", "-0", "{}", "[]", '"a b"', '"a/b"', '"rx\\n"', '"r\u00e9x"', '"\uff11"'),
                *('"rx\\u0000"', '"req:rr_1"', '"q:1"', '"ds:1"', '"ph:1"', f'"{"x" * 129}"'),
            )
        ),
        (RENEWAL_UNMATCHED, {"/data/request_id": ABSENT}, "no_key", "/data/prescription_id"),
        (RENEWAL_UNMATCHED, {"/data": "null"}, "no_key", "/data/prescription_id"),
        (RENEWAL_UNMATCHED, {"/data/request_id": '""'}, "bad_key", "/data/request_id"),
        (RENEWAL_UNMATCHED, {"/data/request_id": "false"}, "bad_key", "/data/request_id"),
        (RENEWAL_UNMATCHED, {"/data/request_id": '"a b"'}, "bad_key", "/data/request_id"),
        (RENEWAL_UNMATCHED, {"/data/request_id": f'"{"r" * 125}"'}, "bad_key", "/data/request_id"),
        (RENEWAL_UNMATCHED, {"/data/prescription_id": '""'}, "bad_key", "/data/prescription_id"),
        (RENEWAL_UNMATCHED, {"/data/matched": ABSENT}, "missing_field", "/data/matched"),
    ],
)
def test_what_has_no_usable_id_of_a_prescription_or_request_parks(
    sample: str, edits: dict[str, str], detail: str, field: str
) -> None:
    assert parked(sample, edits) == ParkReason("unusable", detail, field, None)


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
