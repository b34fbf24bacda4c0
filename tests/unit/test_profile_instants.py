"""Every way a source may write when something happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bridge.event import AHEAD_MAX
from tests.unit.profile_documents import RECEIVED_AT, SENT, SHIPMENT, mapped, parked


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type] # the parts of a datetime, in its order


@pytest.mark.parametrize(
    ("text", "moment", "flags"),
    [
        ('"2026-09-14T15:09:26.535000Z"', at(2026, 9, 14, 15, 9, 26, 535000), ()),
        ('"2026-09-14t15:09:26z"', at(2026, 9, 14, 15, 9, 26), ()),
        ('"2026-09-14 15:09:26+00:00"', at(2026, 9, 14, 15, 9, 26), ()),
        ('"2026-09-14T15:09:26-00:00"', at(2026, 9, 14, 15, 9, 26), ()),
        ('"2026-09-14T01:09:26.1+05:30"', at(2026, 9, 13, 19, 39, 26, 100000), ()),
        ('"2026-09-14T15:09:26-23:59"', at(2026, 9, 15, 15, 8, 26), ()),
        ('"0001-01-01T00:00:00Z"', at(1, 1, 1), ()),
        ('"2026-09-14T15:09:26"', at(2026, 9, 14, 15, 9, 26), ("instant_naive",)),
        ('"2026-09-14 15:09:26.5"', at(2026, 9, 14, 15, 9, 26, 500000), ("instant_naive",)),
        ('"2026-09-14T15:09:26.1234569Z"', at(2026, 9, 14, 15, 9, 26, 123456), ("instant_truncated",)),
        (f'"2026-09-14T15:09:26.{"9" * 50_000}Z"', at(2026, 9, 14, 15, 9, 26, 999999), ("instant_truncated",)),
        ('"2016-12-31T23:59:60Z"', at(2017, 1, 1), ("leap_second",)),
        ('"2016-12-31T18:59:60.25-05:00"', at(2017, 1, 1, 0, 0, 0, 250000), ("leap_second",)),
        ("0", at(1970, 1, 1), ("instant_epoch",)),
        ("2147483648", at(2038, 1, 19, 3, 14, 8), ("instant_epoch", "timestamp_ahead")),
        ('"2038-01-19T03:14:08Z"', at(2038, 1, 19, 3, 14, 8), ("timestamp_ahead",)),
        ("4294967296", at(2106, 2, 7, 6, 28, 16), ("instant_epoch", "timestamp_ahead")),
        ('"2026-03-29T02:30:00+01:00"', at(2026, 3, 29, 1, 30), ()),  # an hour that clocks there leave out
        ('"2024-02-29T23:59:59.999999-12:00"', at(2024, 3, 1, 11, 59, 59, 999999), ()),
        ("-1", at(1969, 12, 31, 23, 59, 59), ("instant_epoch",)),
        ("1789398566", at(2026, 9, 14, 15, 9, 26), ("instant_epoch",)),
        ("1789398566.535", at(2026, 9, 14, 15, 9, 26, 535000), ("instant_epoch",)),
        ("1.789398566e9", at(2026, 9, 14, 15, 9, 26), ("instant_epoch",)),
        ("1789398566535", at(2026, 9, 14, 15, 9, 26, 535000), ("instant_epoch",)),
        ("1789398566535.25", at(2026, 9, 14, 15, 9, 26, 535250), ("instant_epoch",)),
        ("1789398566.1234567", at(2026, 9, 14, 15, 9, 26, 123456), ("instant_epoch", "instant_truncated")),
        ("1e-300", at(1970, 1, 1), ("instant_epoch", "instant_truncated")),
        ("0e99999999999999999999", at(1970, 1, 1), ("instant_epoch",)),
        (f"0.{'3' * 100_000}", at(1970, 1, 1, 0, 0, 0, 333333), ("instant_epoch", "instant_truncated")),
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


def test_seconds_end_where_milliseconds_begin() -> None:
    outcome = mapped(SENT, {"/timestamp": "99999999999"})

    assert outcome.events[0].occurred_at == at(5138, 11, 16, 9, 46, 39)
    assert outcome.flags == ("instant_epoch", "timestamp_ahead")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"last Tuesday"',
        '"1789398566"',
        '"2026-09-14"',
        '"2026-09-14T15:09Z"',
        '"2026-09-14T15:09:26,5Z"',
        '"2026-09-14T15:09:26.Z"',
        '"2026-09-14T15:09:26 Z"',
        '"2026-09-14T15:09:26Z\\n"',
        '"20260914T150926Z"',
        '"2026-W38-1T15:09:26Z"',
        '"2026-02-29T00:00:00Z"',
        '"2026-13-01T00:00:00Z"',
        '"2026-09-14T24:00:00Z"',
        '"2026-09-14T15:60:00Z"',
        '"2026-09-14T15:09:61Z"',
        '"2026-09-14T15:09:26+24:00"',
        '"2026-09-14T15:09:26+05:60"',
        '"2026-09-14T15:09:26+0530"',
        '"2026-09-14T15:09:26+05:30:15"',
        '"\uff12026-09-14T15:09:26Z"',
        '"0000-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+14:00"',
        '"9999-12-31T23:59:59-01:00"',
        '"9999-12-31T23:59:60Z"',
        "253402300800000",
        "-62135596800001",
        "9223372036854775807",
        "-9223372036854775808",
        "1e300",
        "-1e300",
    ],
)
def test_a_timestamp_that_is_none_or_that_nothing_can_hold_parks(text: str) -> None:
    reason = parked(SENT, {"/timestamp": text})

    assert (reason.reason, reason.detail, reason.field) == ("unusable", "bad_time", "/timestamp")


def test_an_instant_ahead_of_the_receipt_is_kept_and_clamped_for_order_only() -> None:
    late, last = RECEIVED_AT + timedelta(days=400), RECEIVED_AT + AHEAD_MAX
    outcome = mapped(SENT, {"/timestamp": f'"{late.isoformat()}"'})

    (event,) = outcome.events
    assert event.value["occurred_at"] == event.occurred_at == late
    assert event.ordering_time == last
    assert outcome.flags == ("timestamp_ahead",)
    assert mapped(SENT, {"/timestamp": f'"{last.isoformat()}"'}).flags == ()


def test_an_optional_instant_is_read_like_the_timestamp() -> None:
    outcome = mapped(SHIPMENT, {"/data/delivered_at": '"2026-09-18 19:22:00+02:00"'})

    assert outcome.events[0].value["delivered_at"] == datetime(2026, 9, 18, 17, 22, tzinfo=UTC)
    assert parked(SHIPMENT, {"/data/delivered_at": '"soon"'}).detail == "wrong_type"
    assert parked(SHIPMENT, {"/data/delivered_at": "1e30"}).detail == "out_of_range"
