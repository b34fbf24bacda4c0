"""Compile an Avro schema into one strict, fast function from a value to its bytes.

fastavro is not used for writing: it accepts 1.9 and True for a `long`, treats a naive datetime as local time, and costs
four times as much, since it tries the branches of every union. Tests compare the bytes of both.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Never

from bridge.errors import BridgeError

Encode = Callable[[Any], bytes]
Named = dict[str, Mapping[str, Any]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_DAY_S = 86_400
_SECOND_US = 1_000_000
_INT = (-(1 << 31), (1 << 31) - 1)  # Avro 1.12, "Primitive Types"
_LONG = (-(1 << 63), (1 << 63) - 1)

# The two branches of ["null", T]: 0 and 1, zigzag.
NULL, VALUE = b"\x00", b"\x02"
END = b"\x00"  # the empty block that ends an array or a map


class EncodeError(BridgeError):
    """A value does not fit its schema, which is a bug of the caller. `field` is its path, without the value."""

    code = "encode"

    def __init__(self, field: str) -> None:
        super().__init__(f"does not match the schema: {field or 'the record itself'}")
        self.field = field


def compile_encoder(schema: Any) -> Encode:
    """Compile a parsed schema, or the type of a field, into an encoder that raises `EncodeError`.

    Raises `ValueError` for a schema that our schema rules do not allow.
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
    make = _SCALARS.get((schema["type"], schema.get("logicalType")))
    if make is None:
        raise ValueError(f"{path}: no encoder for this type")
    return _checked(make(schema), path)


def _nullable(schema: list[Any], path: str, named: Named) -> Encode:
    if len(schema) != 2 or schema[0] != "null":  # noqa: PLR2004 -- null and one type
        raise ValueError(f"{path}: a union must be null and one type")
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
            try:  # as many members as fields, and each field is there, so there are no others
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
    encode_key = _checked(encode_text, f"{path}.*")
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
    """Raise for the value at `path`, without the library's message."""
    raise EncodeError(path) from None


def varint(number: int) -> bytes:
    """Encode a number: zigzag, then seven bits per byte, lowest first (Avro 1.12, "Binary Encoding")."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while rest > 0x7F:  # noqa: PLR2004 -- what seven bits hold
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# A lookup table, since nearly every length and number of an event is below 256.
SHORT = 256
VARINTS = tuple(varint(number) for number in range(SHORT))
VALUE_VARINTS = tuple(VALUE + each for each in VARINTS)


def number(value: int) -> bytes:
    """Return `varint(number)`, from the table if possible."""
    return VARINTS[value] if 0 <= value < SHORT else varint(value)


def microseconds(moment: datetime) -> int:
    """Return the microseconds of an instant since 1970."""
    since = moment - _EPOCH
    return (since.days * _DAY_S + since.seconds) * _SECOND_US + since.microseconds


def _shortest(unscaled: int) -> bytes:
    """Return the shortest two's complement form, preceded by its length."""
    size = (unscaled if unscaled >= 0 else ~unscaled).bit_length() // 8 + 1
    return VARINTS[size] + unscaled.to_bytes(size, "big", signed=True)


def _checked(write: Encode, path: str) -> Encode:
    """Wrap `write` so that its `TypeError` and `ValueError` become `EncodeError`."""

    def encode(value: Any) -> bytes:
        try:
            return write(value)
        except (TypeError, ValueError):
            fail(path)

    return encode


def encode_text(value: Any) -> bytes:
    """Encode a `str`; a lone surrogate raises `UnicodeEncodeError`."""
    if type(value) is not str:
        raise TypeError
    raw = value.encode()
    return number(len(raw)) + raw


def _binary(value: Any) -> bytes:
    if type(value) is not bytes:
        raise TypeError
    return varint(len(value)) + value


def _enum(schema: Mapping[str, Any]) -> Encode:
    encoded = {symbol: varint(index) for index, symbol in enumerate(schema["symbols"])}

    def write(value: Any) -> bytes:
        if type(value) is not str or value not in encoded:
            raise ValueError
        return encoded[value]

    return write


def _boolean(value: Any) -> bytes:
    """Accept True or False, not 1 or 0."""
    if type(value) is not bool:
        raise TypeError
    return b"\x01" if value else b"\x00"


def _integer(bounds: tuple[int, int]) -> Encode:
    """Accept an `int` within the bounds, not a boolean."""
    least, greatest = bounds

    def write(value: Any) -> bytes:
        if type(value) is not int or not least <= value <= greatest:
            raise ValueError
        return number(value)

    return write


def _instant(value: Any) -> bytes:
    """Accept only an aware `datetime`; a naive one depends on the host's time zone."""
    if type(value) is not datetime or value.tzinfo is None:
        raise TypeError
    return varint(microseconds(value))


def _day(value: Any) -> bytes:
    """Accept a `date`, but not its subclass `datetime`."""
    if type(value) is not date:
        raise TypeError
    return varint(value.toordinal() - _EPOCH_DAY)


def _decimal(schema: Mapping[str, Any]) -> Encode:
    """Accept a `Decimal` that needs no rounding; mapping has already rounded and flagged values."""
    precision, scale = schema["precision"], schema["scale"]
    bound: int = 10**precision

    def write(value: Any) -> bytes:
        if type(value) is not Decimal or not value.is_finite():
            raise TypeError
        sign, digits, exponent = value.as_tuple()
        if not -scale <= exponent <= precision:
            raise ValueError
        magnitude: int = int("".join(map(str, digits))) * 10 ** (exponent + scale)
        if magnitude >= bound:
            raise ValueError
        return _shortest(-magnitude if sign else magnitude)

    return write


_SCALARS: dict[tuple[str, str | None], Callable[[Mapping[str, Any]], Encode]] = {
    ("string", None): lambda _: encode_text,
    ("bytes", None): lambda _: _binary,
    ("enum", None): _enum,
    ("boolean", None): lambda _: _boolean,
    ("int", None): lambda _: _integer(_INT),
    ("long", None): lambda _: _integer(_LONG),
    ("long", "timestamp-micros"): lambda _: _instant,
    ("int", "date"): lambda _: _day,
    ("bytes", "decimal"): _decimal,
}
