//! What a number, a decimal, a day and an instant become.

use drx_bridge_native::scalars::{day, decimal, instant, number};

fn written(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, value);
    out
}

fn decimal_of(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    decimal(&mut out, text, 4, 2).map(|()| out)
}

#[test]
fn numbers_are_zigzag() {
    for (given, expected) in [(0, &b"\x00"[..]), (-1, b"\x01"), (63, b"\x7e"), (64, b"\x80\x01"), (-65, b"\x81\x01")] {
        assert_eq!(written(given), expected);
    }
    assert_eq!(written(i64::MIN), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
}

#[test]
fn decimals_are_the_shortest_two_s_complement() {
    for (given, expected) in [
        ("0", Some(&b"\x02\x00"[..])),
        ("-0.00", Some(b"\x02\x00")),
        ("1.27", Some(b"\x02\x7f")),
        ("1.28", Some(b"\x04\x00\x80")),
        ("-1.28", Some(b"\x02\x80")),
        ("007", Some(b"\x04\x02\xbc")),
        ("99.99", Some(b"\x04\x27\x0f")),
        ("100", None),
        ("1.005", None),
        ("1.", None),
        (".5", None),
        ("", None),
        ("-", None),
        ("--1", None),
        ("+1", None),
        ("1e3", None),
        ("\u{ff11}", None),
    ] {
        assert_eq!(decimal_of(given).as_deref(), expected, "{given}");
    }
}

#[test]
fn days_are_those_of_the_calendar() {
    for (given, expected) in [
        ("1970-01-01", Some(0)),
        ("2000-02-29", Some(11_016)),
        ("0001-01-01", Some(-719_162)),
        ("9999-12-31", Some(2_932_896)),
        ("1900-02-29", None),
        ("0000-01-01", None),
        ("2026-13-01", None),
        ("2026-04-31", None),
        ("2026-4-30", None),
    ] {
        assert_eq!(day(given.as_bytes()), expected, "{given}");
    }
}

#[test]
fn instants_are_in_utc() {
    for (given, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("1970-01-01T01:00:00.5+01:00", Some(500_000)),
        ("1969-12-31T23:59:59.999999-00:00", Some(-1)),
        ("0001-01-01T00:00:00+00:01", None),
        ("9999-12-31T23:59:59-00:01", None),
        ("1970-01-01T24:00:00Z", None),
        ("1970-01-01T00:00:60Z", None),
        ("1970-01-01T00:00:00.1234567Z", None),
        ("1970-01-01T00:00:00.Z", None),
        ("1970-01-01T00:00:00+24:00", None),
        ("1970-01-01T00:00:00", None),
        ("1970-01-01 00:00:00Z", None),
        ("1970-01-0\u{661}T00:00:00Z", None),
    ] {
        assert_eq!(instant(given), expected, "{given}");
    }
}
