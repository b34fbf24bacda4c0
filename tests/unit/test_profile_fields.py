"""What a single field takes, what it forgives with a flag, and what parks the event."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tests.unit.profile_documents import (
    FILL,
    FULFILLMENT,
    SENT,
    event_of,
    mapped,
    member,
    parked,
)


def detail_of(sample: str, edits: dict[str, str]) -> tuple[str, str, str]:
    reason = parked(sample, edits)
    return reason.reason, reason.detail, reason.field


@pytest.mark.parametrize("text", ["1", "1.5", "true", "{}", "[]"])
@pytest.mark.parametrize("pointer", ["/source", "/data/medication/sig", "/data/patient/address/line2"])
def test_a_string_is_only_a_string(pointer: str, text: str) -> None:
    assert detail_of(SENT, {pointer: text}) == ("unusable", "wrong_type", pointer)


@pytest.mark.parametrize("text", ["", " ", "\u202eabc", "\U0001f600", "Robert'); DROP TABLE"])
def test_a_string_is_taken_as_it_is(text: str) -> None:
    assert member(event_of(SENT, {"/data/medication/sig": f'"{text}"'}).value, "/medication/sig") == text


@pytest.mark.parametrize(
    ("sample", "pointer"),
    [
        (SENT, "/correlation_id"),
        (SENT, "/data/message_id"),
        (SENT, "/data/patient/id"),
        (SENT, "/data/pharmacy/ncpdp_id"),
        (FULFILLMENT, "/data/queue_id"),
        (FILL, "/data/transferred_to_ncpdp_id"),
    ],
)
def test_an_id_may_be_an_integer(sample: str, pointer: str) -> None:
    outcome = mapped(sample, {pointer: "9223372036854775807"})

    assert member(outcome.events[0].value, pointer.removeprefix("/data")) == "9223372036854775807"
    assert outcome.flags == ("integer_as_string_id",)
    for text in ("1.0", "-0", "true", "[1]"):
        assert detail_of(sample, {pointer: text}) == ("unusable", "wrong_type", pointer)


@pytest.mark.parametrize("pointer", ["/data/prescriber/npi", "/data/prescriber_order_number", "/data/medication/ndc"])
def test_a_number_that_is_no_id_by_name_stays_a_string(pointer: str) -> None:
    """A leading zero of an NDC would be lost by then."""
    assert detail_of(SENT, {pointer: "1999999901"}) == ("unusable", "wrong_type", pointer)


@pytest.mark.parametrize("text", ["0", "1", '"true"', '""'])
def test_a_boolean_is_only_true_or_false(text: str) -> None:
    pointer = "/data/medication/substitution_allowed"

    assert detail_of(SENT, {pointer: text}) == ("unusable", "wrong_type", pointer)


@pytest.mark.parametrize(
    ("pointer", "text", "number", "flags"),
    [
        ("/data/attempt", "2147483647", 2147483647, ()),
        ("/data/attempt", "-2147483648", -2147483648, ()),
        ("/data/attempt", '"007"', 7, ("string_as_integer",)),
        ("/data/attempt", '"000000000000000002"', 2, ("string_as_integer",)),
        ("/sequence", "9223372036854775807", 9223372036854775807, ()),
        ("/sequence", '"999999999999999999"', 999999999999999999, ("string_as_integer",)),
        ("/data/medication/days_supply", '"90"', 90, ("string_as_integer",)),
    ],
)
def test_an_integer_may_be_digits(pointer: str, text: str, number: int, flags: tuple[str, ...]) -> None:
    outcome = mapped(SENT, {pointer: text})

    assert member(outcome.events[0].value, pointer.removeprefix("/data")) == number
    assert outcome.flags == flags


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("2147483648", "out_of_range"),
        ("-2147483649", "out_of_range"),
        ('"2147483648"', "out_of_range"),
        *(
            (text, "wrong_type")
            for text in (
                "1.9",
                "3.0",
                "1e2",
                "-0",
                "true",
                "[1]",
                '""',
                '" 1"',
                '"1\\n"',
                '"+1"',
                '"-1"',
                '"1_000"',
                '"1.0"',
                '"\uff11"',
                '"\u0661"',
                '"0x10"',
                '"0000000000000000001"',
            )
        ),
    ],
)
def test_an_integer_is_never_guessed(text: str, detail: str) -> None:
    assert detail_of(SENT, {"/data/attempt": text}) == ("unusable", detail, "/data/attempt")


@pytest.mark.parametrize(
    ("text", "number", "flags"),
    [
        ('"30"', "30.000", ()),
        ('"-0.5"', "-0.500", ()),
        ('"999999999.999"', "999999999.999", ()),
        ('"0000000000000000001.5"', "1.500", ()),
        ('"1.50000000"', "1.500", ()),
        ('"0.0005"', "0.000", ("decimal_rounded",)),
        ('"0.0015"', "0.002", ("decimal_rounded",)),
        ('"0.00050000000000000000000000000000001"', "0.001", ("decimal_rounded",)),
        ("30", "30.000", ("decimal_from_number",)),
        ("2.5", "2.500", ("decimal_from_number",)),
        ("0.1", "0.100", ("decimal_from_number",)),
        ("-0", "0.000", ("decimal_from_number",)),
        ("3e1", "30.000", ("decimal_from_number",)),
        ("2.675e-1", "0.268", ("decimal_from_number", "decimal_rounded")),
        ("1e-300", "0.000", ("decimal_from_number", "decimal_rounded")),
        ("0e999999999999999999999999", "0.000", ("decimal_from_number",)),
        ("1e-999999999999999999999999", "0.000", ("decimal_from_number", "decimal_rounded")),
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


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('"1000000000"', "out_of_range"),
        ('"999999999.9995"', "out_of_range"),
        ("1e308", "out_of_range"),
        ("-1e9", "out_of_range"),
        ("9223372036854775807", "out_of_range"),
        (f'"{"9" * 100_000}"', "out_of_range"),
        *(
            (text, "wrong_type")
            for text in (
                '""',
                '"+1"',
                '".5"',
                '"5."',
                '"1e3"',
                '"1,5"',
                '" 1"',
                '"1\\n"',
                '"NaN"',
                '"Infinity"',
                '"\uff11"',
                '"1_0"',
                '"--1"',
                "true",
                "[]",
                "{}",
            )
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_decimal_is_never_guessed(text: str, detail: str) -> None:
    pointer = "/data/quantity_dispensed"

    assert detail_of(FILL, {pointer: text}) == ("unusable", detail, pointer)


def test_money_has_two_digits_after_the_point() -> None:
    assert event_of(FULFILLMENT, {"/data/patient_pay": '"99999999.99"'}).value["patient_pay"] == Decimal("99999999.99")
    assert detail_of(FULFILLMENT, {"/data/patient_pay": '"100000000"'})[1] == "out_of_range"


def test_a_day_is_written_in_one_way() -> None:
    assert event_of(FILL, {"/data/fill_date": '"2028-02-29"'}).value["fill_date"] == date(2028, 2, 29)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('"0000-01-01"', "out_of_range"),
        *(
            (text, "wrong_type")
            for text in (
                '""',
                '"2026-02-29"',
                '"2026-13-01"',
                '"2026-9-1"',
                '"20260914"',
                '"2026-W38-1"',
                '"2026-09-14T00:00:00Z"',
                '" 2026-09-14"',
                '"2026-09-14\\n"',
                '"\uff12026-09-14"',
                "20260914",
                "1.5",
                "true",
                "[]",
            )
        ),
    ],
)
def test_another_day_parks(text: str, detail: str) -> None:
    assert detail_of(FILL, {"/data/fill_date": text}) == ("unusable", detail, "/data/fill_date")
