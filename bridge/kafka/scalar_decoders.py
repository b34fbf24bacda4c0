"""Decoders of single values; each takes nothing that its encoder in `scalars` would not have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

Decode = Callable[[bytes, int], tuple[Any, int]]
"""Takes bytes and where a value begins; returns it and where it ends, which lies beyond the bytes if they were cut.

Raises `ValueError`, `IndexError` or `OverflowError` for what is no value.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_INT = (-(1 << 31), (1 << 31) - 1)  # Avro 1.12, "Primitive Types"
_LONG_BITS = 64
_SEVEN_BITS = 0x7F

# Tells a first byte that is no length below 64: more bytes follow, or the number is negative.
NOT_SHORT = 0x81
# The second branch of ["null", T], zigzag.
VALUE = 2


def number(data: bytes, at: int) -> tuple[int, int]:
    """Zigzag, then seven bits per byte, lowest first (Avro 1.12, "Binary Encoding")."""
    byte = data[at]
    at += 1
    rest, shift = byte & _SEVEN_BITS, 7
    while byte > _SEVEN_BITS:
        byte = data[at]
        at += 1
        rest |= (byte & _SEVEN_BITS) << shift
        shift += 7
        if shift > _LONG_BITS and (byte > _SEVEN_BITS or rest >> _LONG_BITS):
            raise ValueError
    return (rest >> 1) ^ -(rest & 1), at


def length(data: bytes, at: int) -> tuple[int, int]:
    """Take what is not negative: a length, or the place of a branch or a symbol."""
    byte = data[at]
    if not byte & NOT_SHORT:
        return byte >> 1, at + 1
    size, at = number(data, at)
    if size < 0:
        raise ValueError
    return size, at


def string(data: bytes, at: int) -> tuple[str, int]:
    """Take UTF-8."""
    byte = data[at]
    if byte & NOT_SHORT:
        size, start = length(data, at)
    else:
        size, start = byte >> 1, at + 1
    end = start + size
    return data[start:end].decode(), end


def nullable_string(data: bytes, at: int) -> tuple[str | None, int]:
    """Take null or what `string` takes: half of all fields, so it is one call instead of two."""
    branch = data[at]
    if not branch:
        return None, at + 1
    if branch != VALUE:
        raise ValueError
    return string(data, at + 1)


def binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Take bytes."""
    size, at = length(data, at)
    end = at + size
    return data[at:end], end


def boolean(data: bytes, at: int) -> tuple[bool, int]:
    """Take 0 or 1."""
    byte = data[at]
    if byte > 1:
        raise ValueError
    return byte == 1, at + 1


def integer(data: bytes, at: int) -> tuple[int, int]:
    """Take a number of 32 bits."""
    value, at = number(data, at)
    if not _INT[0] <= value <= _INT[1]:
        raise ValueError
    return value, at


def instant(data: bytes, at: int) -> tuple[datetime, int]:
    """Take microseconds since 1970 that Python has a year for."""
    micros, at = number(data, at)
    return _EPOCH + timedelta(0, 0, micros), at


def day(data: bytes, at: int) -> tuple[date, int]:
    """Take days since 1970 that Python has a year for."""
    days, at = number(data, at)
    return date.fromordinal(days + _EPOCH_DAY), at


def enum(schema: Mapping[str, Any]) -> Decode:
    """Take the place of a symbol."""
    symbols = tuple(schema["symbols"])

    def decode(data: bytes, at: int) -> tuple[str, int]:
        byte = data[at]
        if not byte & NOT_SHORT:
            return symbols[byte >> 1], at + 1
        place, at = length(data, at)
        return symbols[place], at

    return decode


def decimal(schema: Mapping[str, Any]) -> Decode:
    """Take a two's complement, big-endian, of as many digits as the schema says."""
    exponent, bound = -schema.get("scale", 0), 10 ** schema["precision"]
    context = Context(prec=schema["precision"])

    def decode(data: bytes, at: int) -> tuple[Decimal, int]:
        size, start = length(data, at)
        end = start + size
        unscaled = int.from_bytes(data[start:end], "big", signed=True)
        if not -bound < unscaled < bound:
            raise ValueError
        return Decimal(unscaled).scaleb(exponent, context), end

    return decode


DECODERS: dict[tuple[str, str | None], Callable[[Mapping[str, Any]], Decode]] = {
    ("string", None): lambda _: string,
    ("bytes", None): lambda _: binary,
    ("enum", None): enum,
    ("boolean", None): lambda _: boolean,
    ("int", None): lambda _: integer,
    ("long", None): lambda _: number,
    ("long", "timestamp-micros"): lambda _: instant,
    ("int", "date"): lambda _: day,
    ("bytes", "decimal"): decimal,
}
