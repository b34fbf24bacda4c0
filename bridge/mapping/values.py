"""Read numbers, instants and days as sources write them: exactly and in linear time; instants become UTC."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_DOWN, ROUND_HALF_EVEN, ROUND_UP, Context, Decimal

from bridge.contract.fields import Digits
from bridge.mapping.profile import Flag

# Precise enough for any lexeme; unused precision costs nothing. No number raises: too large an exponent gives infinity,
# too small a one the number next to zero, since rounding is away from zero.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_UP, traps=[])


def exact(lexeme: str) -> Decimal:
    """Parse a number (digits with optional sign, point and exponent) without rounding."""
    return _EXACT.create_decimal(lexeme)


class FixedPoint:
    """Converts numbers to the precision and scale of a fixed-point field."""

    def __init__(self, digits: Digits) -> None:
        """Create the decimal context once, as creating one costs more than using it."""
        self._context = Context(prec=digits.precision, rounding=ROUND_HALF_EVEN, traps=[])
        self._quantum = Decimal(1).scaleb(-digits.scale)

    def fit(self, number: Decimal) -> Decimal | None:
        """Return `number` with exactly the field's fraction digits; None if its integer part has too many."""
        fitted = number.quantize(self._quantum, context=self._context)
        return None if fitted.is_nan() else fitted


# RFC 3339, section 5.6: date-time; its note allows lower case and a space. We also allow a missing zone.
_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]"
    r"((?:[01][0-9]|2[0-3]):[0-5][0-9]):([0-5][0-9]|60)"
    r"(?:\.([0-9]+))?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MICROS_DIGITS = 6

# docs/contract.md §3: an epoch number below 1e11 (the year 5138) is in seconds, and in milliseconds from 1e11 on.
MILLISECONDS_FROM = Decimal("1e11")
# Microseconds per unit.
_IN_SECONDS, _IN_MILLISECONDS = Decimal("1e-6"), Decimal("1e-3")
# Year 9999 has 18 digits of microseconds; a datetime cannot hold more.
_MICROS = Context(prec=18, rounding=ROUND_DOWN, traps=[])


def instant_of_text(text: str, flags: set[Flag]) -> datetime:
    """Read an RFC 3339 instant, in UTC if it has no zone; each leniency used is added to `flags`.

    Raises `ValueError` if `text` is not an instant, and `OverflowError` if a `datetime` cannot hold the instant.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError
    day, minute, second, fraction, zone = match.groups("")
    if not zone:
        flags.add("instant_naive")
    if len(fraction) > _MICROS_DIGITS:
        flags.add("instant_truncated")
    _refuse_year_zero(day)
    offset = zone if len(zone) > 1 else "+00:00"
    micros = fraction[:_MICROS_DIGITS].ljust(_MICROS_DIGITS, "0")
    leap = second == "60"
    if leap:
        flags.add("leap_second")
        second = "59"
    moment = datetime.fromisoformat(f"{day}T{minute}:{second}.{micros}{offset}")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment + timedelta(seconds=1) if leap else moment


def instant_of_epoch(lexeme: str, flags: set[Flag]) -> datetime:
    """Read a JSON number as seconds or, if large, milliseconds since 1970; `OverflowError` if out of range."""
    number = exact(lexeme)
    unit = _IN_SECONDS if number.copy_abs() < MILLISECONDS_FROM else _IN_MILLISECONDS
    whole = number.quantize(unit, context=_MICROS)
    if whole.is_nan():
        raise OverflowError
    flags.add("instant_epoch")
    if whole != number:
        flags.add("instant_truncated")
    return _EPOCH + int(_MICROS.divide(whole, unit)) * _MICROSECOND


def day_of_text(text: str) -> date:
    """Read only `YYYY-MM-DD`. Raises `ValueError` if `text` is not a day, and `OverflowError` if it is out of range."""
    if _DAY.fullmatch(text) is None:
        raise ValueError
    _refuse_year_zero(text)
    return date.fromisoformat(text)


def _refuse_year_zero(text: str) -> None:
    """Raise `OverflowError` for the year 0, which Python cannot represent; nonexistent days raise `ValueError`."""
    if text.startswith("0000"):
        raise OverflowError
