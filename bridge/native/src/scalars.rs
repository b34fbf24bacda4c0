//! Values that a body has as text: read as the plan says, written as Avro's numbers.

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// Python's `datetime` holds the years 1 to 9999 and nothing else.
const YEARS: std::ops::Range<i64> = days(1, 1, 1) * DAY_S * SECOND_US..days(10_000, 1, 1) * DAY_S * SECOND_US;
const FRACTION_MAX: usize = 6;
/// Of the whole part; with a scale of less than 20 an `i128` holds all digits.
const DIGITS_MAX: usize = 18;

/// Append an Avro `int` or `long`: zigzag, seven bits a byte, the lowest first.
pub fn number(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Append an Avro `string`.
pub fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// Append an Avro `decimal` on `bytes`, or return None if the text is none of this size.
pub fn decimal(out: &mut Vec<u8>, text: &str, precision: u32, scale: usize) -> Option<()> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.is_empty() || whole.len() > DIGITS_MAX || fraction.len() > scale || unsigned.ends_with('.') {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', scale - fraction.len());
    let mut unscaled = 0_i128;
    for digit in whole.bytes().chain(fraction.bytes()).chain(zeros) {
        unscaled = unscaled * 10 + i128::from(value_of(digit)?);
    }
    if unscaled >= 10_i128.pow(precision) {
        return None;
    }
    if unsigned.len() != text.len() {
        unscaled = -unscaled;
    }
    let bits = 129 - if unscaled < 0 { unscaled.leading_ones() } else { unscaled.leading_zeros() };
    let size = bits.div_ceil(8) as usize;
    number(out, size as i64);
    out.extend_from_slice(&unscaled.to_be_bytes()[16 - size..]);
    Some(())
}

/// Return the days since 1970 of `YYYY-MM-DD`.
pub fn day(text: &[u8]) -> Option<i64> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = two_digits(y1, y2)? * 100 + two_digits(y3, y4)?;
    let (month, day) = (two_digits(m1, m2)?, two_digits(d1, d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (year >= 1 && (1..=last).contains(&day)).then(|| days(year, month, day))
}

/// Return the microseconds since 1970 of an instant of RFC 3339 with at most six digits behind the point.
pub fn instant(text: &str) -> Option<i64> {
    let (date, time) = text.as_bytes().split_at_checked(10)?;
    let &[b'T', h1, h2, b':', m1, m2, b':', s1, s2, ref rest @ ..] = time else { return None };
    let (hour, minute, second) = (two_digits(h1, h2)?, two_digits(m1, m2)?, two_digits(s1, s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction_us, zone) = fraction(rest)?;
    let seconds = day(date)? * DAY_S + (hour * 60 + minute) * 60 + second - offset_s(zone)?;
    let us = seconds * SECOND_US + fraction_us;
    YEARS.contains(&us).then_some(us)
}

/// Split a fraction of a second, if there is one, from what follows.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let count = digits.iter().take_while(|each| each.is_ascii_digit()).count();
    if !(1..=FRACTION_MAX).contains(&count) {
        return None;
    }
    let (digits, zone) = digits.split_at(count);
    let written = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some((written * 10_i64.pow((FRACTION_MAX - count) as u32), zone))
}

fn offset_s(zone: &[u8]) -> Option<i64> {
    let &[sign, h1, h2, b':', m1, m2] = zone else { return (zone == b"Z").then_some(0) };
    let (hours, minutes) = (two_digits(h1, h2)?, two_digits(m1, m2)?);
    let offset_s = (hours * 60 + minutes) * 60;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Some(offset_s),
        b'-' => Some(-offset_s),
        _ => None,
    }
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    Some(i64::from(value_of(tens)? * 10 + value_of(ones)?))
}

fn value_of(digit: u8) -> Option<u8> {
    digit.is_ascii_digit().then(|| digit - b'0')
}

/// Count the days from 1970-01-01, in years that begin with March, so that the leap day is the last of its year.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Five months have 153 days; 719469 days lie between 1 March of the year 0 and 1970, the first counted as 1.
    year * 365 + leaps + (153 * month + 2) / 5 + day - 719_469
}
