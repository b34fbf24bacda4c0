"""Compile an Avro schema into one strict, fast function from bytes to a value; the inverse of `encoder`.

Of each record a function is generated that is straight code over its fields: it copies a value in which all fields are
absent, and puts in those that are there. Nothing is called for a short string, a word or a small number.

Why not fastavro here: it looks into the schema anew at each field, and costs three times as much; and it takes what no
writer writes. Tests hold both to the same values.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache, partial
from typing import Any

Decode = Callable[[bytes, int], tuple[Any, int]]
"""Takes bytes and where a value begins; returns it and where it ends, which lies beyond the bytes if they were cut.

Raises `ValueError`, `IndexError` or `OverflowError` for what is no value.
"""

NamedDecoders = dict[str, Decode]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_INT = (-(1 << 31), (1 << 31) - 1)  # Avro 1.12, "Primitive Types"
_LONG_BITS = 64
_SEVEN_BITS = 0x7F

# Tells a first byte that is no length below 64: more bytes follow, or the number is negative.
NOT_SHORT = 0x81
# The second branch of ["null", T], zigzag.
VALUE = 2
# A number of eight bytes: the continuation bit is set in all but the last.
_EIGHT_BYTES = struct.Struct("<Q").unpack_from
_MORE, _MORE_BUT_LAST = 0x8080808080808080, 0x0080808080808080
# Of each field: quantities are few and come again and again.
_DECIMALS = 1024
# More than any decimal of a foreign schema needs; converting takes time that grows with the square of the length.
_DECIMAL_MAX_BYTES = 64
_EXACT = Context(prec=3 * _DECIMAL_MAX_BYTES)


def compile_decoder(schema: Mapping[str, Any]) -> Decode:
    """Compile a parsed, self-contained schema; `ValueError` if it contains itself or is beyond the house rules."""
    return _compile(schema, {})


def _compile(schema: Any, named: NamedDecoders) -> Decode:
    if isinstance(schema, list):
        return _nullable(schema, named)
    if isinstance(schema, str):
        known = named.get(schema)
        if known is not None:
            return known
        schema = {"type": schema}
    kind = schema["type"]
    if kind in _COMPOUND:
        found = _COMPOUND[kind](schema, named)
    elif make := DECODERS.get((kind, schema.get("logicalType"))):
        found = make(schema)
    else:
        raise ValueError("no decoder for this type")
    if "name" in schema:
        named[schema["name"]] = found
    return found


def _nullable(schema: list[Any], named: NamedDecoders) -> Decode:
    decode_value = _compile(_only(schema), named)
    if decode_value is string:
        return nullable_string

    def decode(data: bytes, at: int) -> tuple[Any, int]:
        branch = data[at]
        if not branch:
            return None, at + 1
        if branch != VALUE:
            raise ValueError
        return decode_value(data, at + 1)

    return decode


def _only(union: list[Any]) -> Any:
    """Return the one type of a union beside null."""
    if len(union) != 2 or union[0] != "null":  # noqa: PLR2004 -- null and one type
        raise ValueError("a union must be null and one type")
    return union[1]


def _record(schema: Mapping[str, Any], named: NamedDecoders) -> Decode:
    names: dict[str, Any] = {"nullable_string": nullable_string}
    lines = ["def decode(data, at):", "    value = blank()"]
    for place, field in enumerate(schema["fields"]):
        kind, target = field["type"], f"value[{field['name']!r}]"
        is_nullable = isinstance(kind, list)
        read = names[f"read{place}"] = _compile(_only(kind) if is_nullable else kind, named)
        if isinstance(read, Word):
            names[f"symbols{place}"] = read.symbols
        source = _nullable_source if is_nullable else _source
        lines += [f"    {line}" for line in source(target, place, read)]
    lines.append("    return value, at")
    names["blank"] = dict.fromkeys(field["name"] for field in schema["fields"]).copy
    exec("\n".join(lines), names)  # noqa: S102 - the schema's names are quoted
    decode: Decode = names["decode"]
    return decode


def _source(target: str, place: int, read: Decode) -> Iterator[str]:
    """Yield the lines that read the field at `place`; what is not short or small is left to `read`."""
    if read is string:
        yield f"if not (n := data[at]) & {NOT_SHORT}: {target} = data[at + 1 : (at := at + 1 + (n >> 1))].decode()"
    elif isinstance(read, Word):
        yield f"if not (n := data[at]) & {NOT_SHORT}: {target} = symbols{place}[n >> 1]; at += 1"
    elif read is number or read is integer:
        yield f"if (n := data[at]) <= {_SEVEN_BITS}: {target} = (n >> 1) ^ -(n & 1); at += 1"
    else:
        yield f"{target}, at = read{place}(data, at)"
        return
    yield f"else: {target}, at = read{place}(data, at)"


def _nullable_source(target: str, place: int, read: Decode) -> Iterator[str]:
    """Yield the lines that read such a field where null may stand instead, which the blank value has already."""
    yield "if n := data[at]:"
    if read is string:  # half of all fields
        yield f"    if n == {VALUE} and not (n := data[at + 1]) & {NOT_SHORT}:"
        yield f"        {target} = data[at + 2 : (at := at + 2 + (n >> 1))].decode()"
        yield f"    else: {target}, at = nullable_string(data, at)"
    else:
        yield f"    if n != {VALUE}: raise ValueError"
        yield "    at += 1"
        for line in _source(target, place, read):
            yield f"    {line}"
    yield "else: at += 1"


def _array(schema: Mapping[str, Any], named: NamedDecoders) -> Decode:
    decode_item = _compile(schema["items"], named)

    def decode(data: bytes, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []

        def take(at: int) -> int:
            item, at = decode_item(data, at)
            items.append(item)
            return at

        return items, _blocks(data, at, take)

    return decode


def _map(schema: Mapping[str, Any], named: NamedDecoders) -> Decode:
    decode_item = _compile(schema["values"], named)

    def decode(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        items: dict[str, Any] = {}
        if not data[at]:  # nearly always: no block at all
            return items, at + 1

        def take(at: int) -> int:
            key, at = string(data, at)
            items[key], at = decode_item(data, at)
            return at

        return items, _blocks(data, at, take)

    return decode


def _blocks(data: bytes, at: int, take: Callable[[int], int]) -> int:
    """Read the blocks of an array or a map; `take` reads one item and returns where it ends."""
    count, at = number(data, at)
    while count:
        if count < 0:  # followed by the size of the block, for those who skip it
            count = -count
            _, at = length(data, at)
        for _ in range(count):
            at = take(at)
        count, at = number(data, at)
    return at


def number(data: bytes, at: int) -> tuple[int, int]:
    """Zigzag, then seven bits per byte, lowest first (Avro 1.12, "Binary Encoding")."""
    byte = data[at]
    rest = byte & _SEVEN_BITS
    if byte > _SEVEN_BITS:
        # Days have three bytes, most lengths of text two.
        byte = data[at := at + 1]
        rest |= (byte & _SEVEN_BITS) << 7
        if byte > _SEVEN_BITS:
            byte = data[at := at + 1]
            rest |= (byte & _SEVEN_BITS) << 14
            if byte > _SEVEN_BITS:
                return _long_number(data, at + 1, rest)
    return (rest >> 1) ^ -(rest & 1), at + 1


def _long_number(data: bytes, at: int, rest: int) -> tuple[int, int]:
    """Go on behind three bytes."""
    byte, shift = NOT_SHORT, 21
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
    rest = _EIGHT_BYTES(data, at)[0] if at + 8 <= len(data) else 0
    if rest & _MORE == _MORE_BUT_LAST:
        # Close the gaps of one bit between sevens, then those between fourteens, then that between 28 bits.
        rest = rest & 0x007F007F007F007F | (rest & 0x7F007F007F007F00) >> 1
        rest = rest & 0x00003FFF00003FFF | (rest & 0x3FFF00003FFF0000) >> 2
        rest = rest & 0x0FFFFFFF | (rest & 0x0FFFFFFF00000000) >> 4
        return _EPOCH + timedelta(0, 0, (rest >> 1) ^ -(rest & 1)), at + 8
    micros, at = number(data, at)
    return _EPOCH + timedelta(0, 0, micros), at


def day(data: bytes, at: int) -> tuple[date, int]:
    """Take days since 1970 that Python has a year for."""
    days, at = number(data, at)
    return date.fromordinal(days + _EPOCH_DAY), at


class Word:
    """Takes the place of a symbol."""

    __slots__ = ("symbols",)

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.symbols = tuple(schema["symbols"])

    def __call__(self, data: bytes, at: int) -> tuple[str, int]:
        """Return the symbol."""
        place, at = length(data, at)
        return self.symbols[place], at


def decimal(schema: Mapping[str, Any]) -> Decode:
    """Read what `exact` reads, with a length before it."""
    value = lru_cache(_DECIMALS)(partial(exact, schema))

    def decode(data: bytes, at: int) -> tuple[Decimal, int]:
        size, start = length(data, at)
        end = start + size
        return value(data[start:end]), end

    return decode


def exact(schema: Mapping[str, Any], content: bytes) -> Decimal:
    """Return the decimal that a big-endian two's complement stands for."""
    unscaled = int.from_bytes(content, "big", signed=True)
    if len(content) > _DECIMAL_MAX_BYTES or abs(unscaled) >= 10 ** schema["precision"]:
        raise ValueError
    return Decimal(unscaled).scaleb(-schema.get("scale", 0), _EXACT)


DECODERS: dict[tuple[str, str | None], Callable[[Mapping[str, Any]], Decode]] = {
    ("string", None): lambda _: string,
    ("bytes", None): lambda _: binary,
    ("enum", None): Word,
    ("boolean", None): lambda _: boolean,
    ("int", None): lambda _: integer,
    ("long", None): lambda _: number,
    ("long", "timestamp-micros"): lambda _: instant,
    ("int", "date"): lambda _: day,
    ("bytes", "decimal"): decimal,
}

_COMPOUND: dict[str, Callable[[Mapping[str, Any], NamedDecoders], Decode]] = {
    "record": _record,
    "array": _array,
    "map": _map,
}
