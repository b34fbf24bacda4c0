"""What is decoded is what fastavro reads, and what no writer writes is refused."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from bridge.avro.codec import Codec, Decoded
from bridge.avro.decoder import compile_decoder
from bridge.avro.encoder import varint
from bridge.registry.schemas import WriterSchema, expand
from tests.unit.schema_corpus import DATE, DECIMAL, ENUM, MICROS

NO_VALUE = (ValueError, IndexError, OverflowError)

STRING = {"type": "array", "items": "string"}
STRINGS = {"type": "map", "values": "string"}
MANY = {"type": "enum", "name": "E", "symbols": [f"s{place}" for place in range(70)]}


def field(schema: Any, body: bytes) -> Any:
    """Decode one value as the only field of a record."""
    record = expand({"type": "record", "name": "R", "fields": [{"name": "f", "type": schema}]})
    value, end = compile_decoder(record)(body, 0)
    if end != len(body):
        raise ValueError
    return value["f"]


@pytest.mark.parametrize(
    ("schema", "body", "value"),
    [
        ("string", b"\x02x", "x"),
        ("string", varint(64) + b"x" * 64, "x" * 64),
        (["null", "string"], b"\x00", None),
        (["null", "string"], b"\x02\x02x", "x"),
        (["null", "string"], b"\x02" + varint(64) + b"x" * 64, "x" * 64),
        (["null", "int"], b"\x00", None),
        (["null", "int"], b"\x02\x01", -1),
        ("boolean", b"\x01", True),
        ("boolean", b"\x00", False),
        ("int", varint(-(2**31)), -(2**31)),
        ("long", varint(2**63 - 1), 2**63 - 1),
        ("long", varint(-(2**63)), -(2**63)),
        (MICROS, varint(-1), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (DATE, varint(-1), date(1969, 12, 31)),
        (DECIMAL, b"\x04\xd8\xf1", Decimal("-99.99")),
        (MANY, varint(69), "s69"),
        (STRING, b"\x00", []),
        (STRING, b"\x02\x02a\x02\x02b\x00", ["a", "b"]),
        (STRING, b"\x03\x08\x02a\x02b\x00", ["a", "b"]),
        (STRINGS, b"\x00", {}),
        (STRINGS, b"\x01\x08\x02a\x02b\x00", {"a": "b"}),
    ],
)
def test_every_form_that_the_specification_allows_is_read(schema: Any, body: bytes, value: object) -> None:
    """Avro 1.12, "Binary Encoding": blocks may be many, and may lead with their size."""
    assert field(schema, body) == value


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        ("string", b"\x01"),
        ("string", b"\x04x"),
        ("string", b"\x02\xff"),
        (["null", "string"], b"\x04\x02x"),
        (["null", "string"], b"\x01\x02x"),
        (["null", "string"], b"\x02\x01"),
        (["null", "string"], b"\x82\x00\x02x"),
        (["null", "int"], b"\x04\x02"),
        ({"type": "array", "items": ["null", "int"]}, b"\x02\x04\x02\x00"),
        ("bytes", b"\x01"),
        ("boolean", b"\x02"),
        ("int", varint(2**31)),
        ("int", varint(-(2**31) - 1)),
        ("long", varint(2**63)),
        ("long", b"\x80" * 10 + b"\x00"),
        (MICROS, varint(2**60)),
        (DATE, varint(10**7)),
        (DECIMAL, b"\x04\x27\x10"),
        (DECIMAL, b"\x01"),
        (DECIMAL, varint(450_000) + b"\x7f" * 450_000),
        (ENUM, b"\x01"),
        (ENUM, b"\x04"),
        (ENUM, varint(64)),
        (STRING, b"\x02\x02a"),
        (STRING, b"\x01\x03\x02a\x00"),
        (STRINGS, b"\x02\x02a"),
    ],
)
def test_bytes_that_no_writer_writes_are_refused(schema: Any, body: bytes) -> None:
    """A negative place of a symbol, a number too long, digits beyond the precision: fastavro takes some of these."""
    with pytest.raises(NO_VALUE):
        field(schema, body)


@pytest.mark.parametrize(
    ("schema", "body", "value"),
    [
        ("double", b"\x00\x00\x00\x00\x00\x00\xf8\x3f", 1.5),
        (["string", "null"], b"\x00\x02x", "x"),
        (["null", "string", "int"], b"\x04\x02", 1),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", b"ab"),
        (["null", "R"], b"\x02\x00", {"f": None}),
        ({"type": "array", "items": "string"}, b"\x03\x08\x02a\x02b\x00", ["a", "b"]),
    ],
)
def test_a_schema_beyond_the_house_rules_is_read_all_the_same(schema: Any, body: bytes, value: object) -> None:
    """By fastavro: other producers' schemas may hold what ours must not, themselves included."""
    codec = Codec(schemas={}, ids={})
    codec.learn(WriterSchema(1, None, {"type": "record", "name": "R", "fields": [{"name": "f", "type": schema}]}))

    assert codec.decode(b"\x00\x00\x00\x00\x01" + body) == Decoded("R", 1, {"f": value})


def test_a_record_of_an_older_schema_comes_in_the_shape_of_the_newest() -> None:
    fields = [{"name": "a", "type": "long"}, {"name": "b", "type": ["null", "string"], "default": None}]
    newest = {"type": "record", "name": "R", "fields": fields}
    codec = Codec(schemas={"R": newest}, ids={"R": 2}, writers=[WriterSchema(1, None, newest | {"fields": fields[:1]})])

    assert codec.decode(b"\x00\x00\x00\x00\x01\x06").value == {"a": 3, "b": None}
