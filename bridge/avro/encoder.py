"""Compile an Avro schema into one strict, fast function from a value to its bytes.

Why not fastavro here: it writes 1.9 and True into a `long`, takes a naive datetime for local time, and costs four times
as much, since it validates every union by trial. Tests hold both to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Never

from bridge.errors import BridgeError

Encode = Callable[[Any], bytes]
Named = dict[str, Mapping[str, Any]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY = _EPOCH.toordinal()
_DAY_S = 86_400
_SECOND_US = 1_000_000
_INT = (-(1 << 31), (1 << 31) - 1)  # Avro 1.12, "Primitive Types"
_LONG = (-(1 << 63), (1 << 63) - 1)

# The two branches of ["null", T]: 0 and 1, zigzag.
NULL, VALUE = b"\x00", b"\x02"
END = b"\x00"  # the empty block that ends an array or a map


class EncodeError(BridgeError):
    """A value does not fit its schema: a bug of the caller.

    Attributes:
        field: Path of the field at fault, array and map items as `*`, never a value; empty for the record itself.
    """

    code = "encode"

    def __init__(self, field: str) -> None:
        super().__init__(f"not what the schema says: {field or 'the record itself'}")
        self.field = field


def compile_encoder(schema: Mapping[str, Any]) -> Encode:
    """Return the function that writes a value of `schema`, or raises `EncodeError`.

    Args:
        schema: Self-contained and parsed: every name is a full name.

    Raises:
        ValueError: The schema uses a part of Avro that the house rules leave out.
    """
    return _compile(schema, "", {})


def _compile(schema: Any, path: str, named: Named) -> Encode:
    if isinstance(schema, list):
        return _nullable(schema, path, named)
    if isinstance(schema, str):
        schema = named.get(schema, {"type": schema})
    if "name" in schema:
        named[schema["name"]] = schema
    if schema["type"] == "record":
        return _record(schema, path, named)
    if schema["type"] == "array":
        return _array(schema, path, named)
    if schema["type"] == "map":
        return _map(schema, path, named)
    make = ENCODERS.get((schema["type"], schema.get("logicalType")))
    if make is None:
        message = f"{path}: no encoder for this type"
        raise ValueError(message)
    return make(schema, path)


def _nullable(schema: list[Any], path: str, named: Named) -> Encode:
    if len(schema) != 2 or schema[0] != "null":  # noqa: PLR2004 -- null and one type
        message = f"{path}: a union must be null and one type"
        raise ValueError(message)
    if schema[1] == "string":
        return nullable_string(path)
    encode_value = _compile(schema[1], path, named)

    def encode(value: Any) -> bytes:
        return NULL if value is None else VALUE + encode_value(value)

    return encode


def _record(schema: Mapping[str, Any], path: str, named: Named) -> Encode:
    prefix = f"{path}." if path else ""
    fields = [(each["name"], _compile(each["type"], prefix + each["name"], named)) for each in schema["fields"]]
    names = {name for name, _ in fields}
    defaults = {each["name"]: each["default"] for each in schema["fields"] if "default" in each}
    count = len(fields)

    def complete(value: Mapping[str, Any]) -> Mapping[str, Any]:
        missing = names - value.keys() - defaults.keys()
        if missing:
            fail(prefix + min(missing))
        if value.keys() - names:
            fail(path)  # the unknown name is left out: it may itself be a value
        return {**defaults, **value}

    def encode(value: Any) -> bytes:
        if type(value) is not dict and not isinstance(value, Mapping):
            fail(path)
        if len(value) == count:
            try:  # as many as there are fields, and each field is there: nothing else can be
                return b"".join([write(value[name]) for name, write in fields])
            except KeyError:
                pass
        whole = complete(value)
        return b"".join([write(whole[name]) for name, write in fields])

    return encode


def _array(schema: Mapping[str, Any], path: str, named: Named) -> Encode:
    encode_item = _compile(schema["items"], f"{path}.*", named)

    def encode(value: Any) -> bytes:
        if type(value) is not list and type(value) is not tuple:
            fail(path)
        if not value:
            return END
        return b"".join([varint(len(value)), *map(encode_item, value), END])

    return encode


def _map(schema: Mapping[str, Any], path: str, named: Named) -> Encode:
    encode_key = string(schema, f"{path}.*")
    encode_item = _compile(schema["values"], f"{path}.*", named)

    def encode(value: Any) -> bytes:
        if type(value) is not dict and not isinstance(value, Mapping):
            fail(path)
        if not value:
            return END
        items = [encode_key(key) + encode_item(item) for key, item in value.items()]
        return b"".join([varint(len(items)), *items, END])

    return encode


def fail(path: str) -> Never:
    """Refuse the value at `path`, without the text of the library's exception."""
    raise EncodeError(path) from None


def varint(number: int) -> bytes:
    """Zigzag, then seven bits per byte, lowest first (Avro 1.12, "Binary Encoding")."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while rest > 0x7F:  # noqa: PLR2004 -- what seven bits hold
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# Looked up instead of computed: nearly every length and number of an event is below 256.
SHORT = 256
VARINTS = tuple(varint(number) for number in range(SHORT))
VALUE_VARINTS = tuple(VALUE + each for each in VARINTS)


def number(value: int) -> bytes:
    """Return a `varint`, mostly without computing it."""
    return VARINTS[value] if 0 <= value < SHORT else varint(value)


def microseconds(moment: datetime) -> int:
    """Return the microseconds of an instant since 1970."""
    since = moment - _EPOCH
    return (since.days * _DAY_S + since.seconds) * _SECOND_US + since.microseconds


def shortest(unscaled: int) -> bytes:
    """Return the shortest two's complement, with its length in front."""
    size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return VARINTS[size] + unscaled.to_bytes(size, "big", signed=True)


def string(_schema: Mapping[str, Any], path: str) -> Encode:
    """Take `str` that UTF-8 can hold."""

    def encode(value: Any) -> bytes:
        if type(value) is not str:
            fail(path)
        try:
            raw = value.encode()
        except UnicodeEncodeError:  # a lone surrogate
            fail(path)
        size = len(raw)
        return (VARINTS[size] if size < SHORT else varint(size)) + raw

    return encode


def nullable_string(path: str) -> Encode:
    """Take None or what `string` takes: half of all fields, so it is one call instead of two."""

    def encode(value: Any) -> bytes:
        if value is None:
            return NULL
        if type(value) is not str:
            fail(path)
        try:
            raw = value.encode()
        except UnicodeEncodeError:  # a lone surrogate
            fail(path)
        size = len(raw)
        return (VALUE_VARINTS[size] if size < SHORT else VALUE + varint(size)) + raw

    return encode


def binary(_schema: Mapping[str, Any], path: str) -> Encode:
    """Take `bytes`."""

    def encode(value: Any) -> bytes:
        if type(value) is not bytes:
            fail(path)
        return varint(len(value)) + value

    return encode


def enum(schema: Mapping[str, Any], path: str) -> Encode:
    """Take one of the symbols."""
    places = {symbol: varint(place) for place, symbol in enumerate(schema["symbols"])}

    def encode(value: Any) -> bytes:
        if type(value) is not str or value not in places:
            fail(path)
        return places[value]

    return encode


def boolean(_schema: Mapping[str, Any], path: str) -> Encode:
    """Take True or False, and not 1 or 0."""

    def encode(value: Any) -> bytes:
        if value is True:
            return b"\x01"
        if value is False:
            return b"\x00"
        fail(path)

    return encode


def integer(schema: Mapping[str, Any], path: str) -> Encode:
    """Take an `int` that fits, and not a boolean."""
    least, greatest = _INT if schema["type"] == "int" else _LONG

    def encode(value: Any) -> bytes:
        if type(value) is not int or not least <= value <= greatest:
            fail(path)
        return number(value)

    return encode


def instant(_schema: Mapping[str, Any], path: str) -> Encode:
    """Require an aware `datetime`; a naive one would mean another instant on each host."""

    def encode(value: Any) -> bytes:
        if type(value) is not datetime or value.tzinfo is None:
            fail(path)
        return varint(microseconds(value))

    return encode


def day(_schema: Mapping[str, Any], path: str) -> Encode:
    """Take a `date`, and not a `datetime`, which Python calls one, too."""

    def encode(value: Any) -> bytes:
        if type(value) is not date:
            fail(path)
        return varint(value.toordinal() - EPOCH_DAY)

    return encode


def decimal(schema: Mapping[str, Any], path: str) -> Encode:
    """Take a `Decimal` that needs no rounding: rounding is flagged where it happens, and that is not here."""
    precision, scale = schema["precision"], schema["scale"]
    bound: int = 10**precision

    def encode(value: Any) -> bytes:
        if type(value) is not Decimal or not value.is_finite():
            fail(path)
        sign, digits, exponent = value.as_tuple()
        if not -scale <= exponent <= precision:
            fail(path)
        magnitude: int = int("".join(map(str, digits))) * 10 ** (exponent + scale)
        if magnitude >= bound:
            fail(path)
        unscaled = -magnitude if sign else magnitude
        return shortest(unscaled)

    return encode


ENCODERS: dict[tuple[str, str | None], Callable[[Mapping[str, Any], str], Encode]] = {
    ("string", None): string,
    ("bytes", None): binary,
    ("enum", None): enum,
    ("boolean", None): boolean,
    ("int", None): integer,
    ("long", None): integer,
    ("long", "timestamp-micros"): instant,
    ("int", "date"): day,
    ("bytes", "decimal"): decimal,
}
