"""Any Avro reader reads the codec's output; the codec refuses invalid values and records."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro  # noqa: TID251 -- the other implementation that ours is held to
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.avro.codec import SCHEMA_HEADER, Codec, Decoded
from bridge.avro.encoder import EncodeError, compile_encoder, varint
from bridge.errors import DecodeError
from bridge.registry.loader import bundled
from bridge.registry.schemas import WriterSchema, expand
from tests.builders import a_ping
from tests.unit.schema_corpus import DATE, DECIMAL, ENUM, MICROS, values

LOCK = bundled()
SCHEMAS = LOCK.schemas()
PARSED = {record: fastavro.parse_schema(dict(schema)) for record, schema in SCHEMAS.items()}
CODEC = Codec(
    schemas=SCHEMAS, ids=LOCK.ids(), writers=[WriterSchema(e.id, UUID(e.guid), e.schema) for e in LOCK.entries]
)
RECORDS = sorted(SCHEMAS)

PING = "drx.v1.SystemPing"
PING_ID = LOCK.ids()[PING]
PING_GUID = UUID(LOCK.latest()[PING].guid)
MARKER = "Quintero"


def fastavro_bytes(record: str, value: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED[record], value, strict_allow_default=True)
    return out.getvalue()


def encoded_field(schema: Any, value: object) -> bytes:
    record = {"type": "record", "name": "R", "fields": [{"name": "f", "type": schema}]}
    return compile_encoder(expand(record))({"f": value})


@pytest.mark.parametrize("record", RECORDS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_again_and_is_what_fastavro_writes(record: str, data: st.DataObject) -> None:
    value = data.draw(values(expand(SCHEMAS[record])))

    payload = CODEC.encode(record, value)
    assert payload[5:] == fastavro_bytes(record, value)
    assert CODEC.decode(payload) == Decoded(record, LOCK.ids()[record], value)


def test_a_payload_leads_with_a_zero_and_the_id_of_the_schema() -> None:
    """Confluent, "Wire format"."""
    assert CODEC.encode(PING, a_ping())[:5] == b"\x00" + PING_ID.to_bytes(4, "big")


def test_the_header_form_is_read_and_counts_before_the_payload() -> None:
    """Of repeated headers the last counts."""
    body = CODEC.encode(PING, a_ping())[5:]

    headers = [(SCHEMA_HEADER, b"of no schema"), (SCHEMA_HEADER, b"\x01" + PING_GUID.bytes), ("ce_id", b"evt_1")]
    assert CODEC.decode(body, headers) == Decoded(PING, PING_ID, a_ping())


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("string", b"bytes"),
        ("string", None),
        ("string", "\ud800"),
        ("bytes", bytearray(b"x")),
        ("boolean", 1),
        ("int", True),
        ("int", 2**31),
        ("long", 1.9),
        ("long", 2**63),
        (["null", "long"], False),
        (["null", "string"], "\udfff"),
        (MICROS, datetime(2026, 1, 1)),  # noqa: DTZ001 -- the naive one is the case
        (MICROS, date(2026, 1, 1)),
        (DATE, datetime(2026, 1, 1, tzinfo=UTC)),
        (DATE, 1),
        (DECIMAL, 1),
        (DECIMAL, 1.5),
        (DECIMAL, Decimal("1.005")),
        (DECIMAL, Decimal("100.00")),
        (DECIMAL, Decimal("1E+999999")),
        (DECIMAL, Decimal("NaN")),
        (ENUM, "b"),
        (ENUM, ["a"]),
        ({"type": "array", "items": "string"}, "text"),
        ({"type": "array", "items": "string"}, ["a", 1]),
        ({"type": "map", "values": "string"}, ["a"]),
        ({"type": "map", "values": "string"}, {"a": 1}),
        ({"type": "record", "name": "S", "fields": []}, []),
        ({"type": "record", "name": "S", "fields": []}, {"a": 1}),
    ],
)
def test_a_value_of_any_other_type_is_refused(schema: Any, value: object) -> None:
    """The library below would write half of these as something else."""
    with pytest.raises(EncodeError, match=r"^does not match the schema: f(\.\*)?$"):
        encoded_field(schema, value)


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (Decimal("99.99"), b"\x04\x27\x0f"),
        (Decimal("-99.99"), b"\x04\xd8\xf1"),
        (Decimal("1.28"), b"\x04\x00\x80"),
        (Decimal("-1.28"), b"\x02\x80"),
        (Decimal(0), b"\x02\x00"),
    ],
)
def test_a_decimal_is_the_shortest_twos_complement(value: Decimal, body: bytes) -> None:
    """Avro 1.12, "Decimal": the unscaled integer, big-endian; 1000 stands for 10.00 here."""
    assert encoded_field(DECIMAL, value) == body


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"attempt": True}, "attempt"),
        ({"network_status": {"kind": "status", "raw_kind": None, "code": 0}}, "network_status.code"),
        ({"network_status": {"kind": "status"}}, "network_status.code"),
        ({"network_status": {"kind": "status", "code": "000", MARKER: "x"}}, "network_status"),
        ({MARKER: "x"}, "the record itself"),
        ({"attempt": ...}, "attempt"),
        ({"attempt": ..., MARKER: "x"}, "attempt"),
        ({"patient": {"first_name": MARKER}}, "patient.last_name"),
        ({"extensions": {"/a": MARKER.encode()}}, r"extensions\.\*"),
    ],
)
def test_a_refusal_names_the_field_and_never_a_value(change: dict[str, object], field: str) -> None:
    """`...` stands for a field that is missing."""
    sent = {
        **a_ping(event_type="prescription.sent"),
        "delivery_mode": "erx",
        "attempt": 1,
        "network_status": {"kind": "status", "code": "000"},
        **change,
    }
    del sent["message"]

    with pytest.raises(EncodeError, match=rf"^does not match the schema: {field}$") as raised:
        CODEC.encode("drx.v1.PrescriptionSent", {name: each for name, each in sent.items() if each is not ...})
    assert MARKER not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    "schema",
    ["double", ["string", "null"], ["null", "string", "int"], {"type": "long", "logicalType": "timestamp-millis"}],
)
def test_a_schema_beyond_the_house_rules_is_not_compiled(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"^f: "):
        encoded_field(schema, None)


@pytest.mark.parametrize("record", ["drx.v1.UnrecognizedDelivery", PING])
def test_a_record_cut_anywhere_is_refused(record: str) -> None:
    parked = {
        "webhook_id": "msg_1",
        "source": "drx",
        "received_at": datetime(2026, 9, 14, tzinfo=UTC),
        "reason": "malformed_json",
        "headers": {"content-type": "application/json"},
        "body": MARKER.encode(),
    }
    payload = CODEC.encode(record, parked if record != PING else a_ping(extensions={"/a": "1"}))

    codes = [refusal(payload[:length]) for length in range(len(payload))]
    assert codes == ["truncated"] * 5 + ["malformed"] * (len(payload) - 5)


def refusal(payload: bytes, headers: list[tuple[str, bytes]] | None = None) -> str:
    with pytest.raises(DecodeError) as raised:
        CODEC.decode(payload, headers or [])
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    return raised.value.code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "truncated"),
        (b"\x01" + CODEC.encode(PING, a_ping())[1:], "bad_magic"),
        (b"\x00\x00\x00\x10\x00" + CODEC.encode(PING, a_ping())[5:], "unknown_schema_id"),
        (CODEC.encode(PING, a_ping()) + b"\x00", "trailing_bytes"),
        (CODEC.encode(PING, a_ping()) * 2, "trailing_bytes"),
        (CODEC.encode(PING, a_ping())[:5] + b"\x01" * 80, "malformed"),
        (CODEC.encode(PING, a_ping())[:5] + b"\xff" * 80, "malformed"),
        (CODEC.encode(PING, a_ping())[:5] + b"\x04\xff\xff" + CODEC.encode(PING, a_ping())[5:], "malformed"),
    ],
)
def test_bytes_that_are_no_record_of_ours_are_refused(payload: bytes, code: str) -> None:
    assert refusal(payload) == code


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"", "bad_schema_header"),
        (b"\x00" + PING_GUID.bytes, "bad_schema_header"),
        (b"\x01" + bytes(16), "unknown_schema_id"),
    ],
)
def test_a_schema_header_that_names_no_schema_is_refused(header: bytes, code: str) -> None:
    assert refusal(CODEC.encode(PING, a_ping())[5:], [(SCHEMA_HEADER, header)]) == code


def test_a_learned_schema_is_readable_at_once_even_if_no_record_of_ours() -> None:
    foreign = {"type": "record", "name": "Foreign", "namespace": "x", "fields": [{"name": "a", "type": "long"}]}
    codec = Codec(schemas=SCHEMAS, ids={})
    codec.learn(WriterSchema(4096, None, foreign))

    assert codec.decode(b"\x00\x00\x00\x10\x00\x06") == Decoded("x.Foreign", 4096, {"a": 3})


@pytest.mark.parametrize(
    "schema",
    [
        "string",
        {},
        [],
        {"type": "string"},
        {"type": "enum", "name": "E", "symbols": ["a"]},
        {"type": "record", "name": "R"} | {"fields": ["a"]},
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": "x.Elsewhere"}]},
        {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string", "default": 1}]},
    ],
)
def test_what_is_no_record_schema_is_not_learned(schema: Any) -> None:
    """Registries hold anything."""
    codec = Codec(schemas=SCHEMAS, ids={})

    with pytest.raises(ValueError, match=r"^not a self-contained Avro record$"):
        codec.learn(WriterSchema(4096, None, schema))


def test_a_foreign_record_of_our_name_is_refused() -> None:
    """The id alone says how to read it, and what comes out must still be one of ours."""
    codec = Codec(schemas=SCHEMAS, ids={})
    codec.learn(WriterSchema(4096, None, {"type": "record", "name": "SystemPing", "namespace": "drx.v1", "fields": []}))

    with pytest.raises(DecodeError, match=r"^schema_mismatch$"):
        codec.decode(b"\x00\x00\x00\x10\x00")


def test_a_decoded_record_shows_no_value() -> None:
    """It may end in a log line or in an assertion's message."""
    assert MARKER not in repr(CODEC.decode(CODEC.encode(PING, a_ping(message=MARKER))))


def field(schema: Any, body: bytes) -> Any:
    """Decode one value as the only field of a foreign record."""
    codec = Codec(schemas={}, ids={})
    codec.learn(WriterSchema(1, None, {"type": "record", "name": "R", "fields": [{"name": "f", "type": schema}]}))
    return codec.decode(b"\x00\x00\x00\x00\x01" + body).value["f"]


@pytest.mark.parametrize(
    ("schema", "body", "value"),
    [
        ("double", b"\x00\x00\x00\x00\x00\x00\xf8\x3f", 1.5),
        (["string", "null"], b"\x00\x02x", "x"),
        (["null", "R"], b"\x02\x00", {"f": None}),
        ({"type": "array", "items": "string"}, b"\x03\x08\x02a\x02b\x00", ["a", "b"]),
    ],
)
def test_a_schema_beyond_the_house_rules_is_read_all_the_same(schema: Any, body: bytes, value: object) -> None:
    """Other producers' schemas may hold what ours must not, themselves included."""
    assert field(schema, body) == value


@pytest.mark.parametrize("body", [b"\x04\x27\x10", varint(450_000) + b"\x7f" * 450_000], ids=["precision", "length"])
def test_a_decimal_of_too_many_digits_is_refused(body: bytes) -> None:
    """Fastavro alone rounds beyond the precision, and converts any length."""
    assert field(DECIMAL, b"\x04\xd8\xf1") == Decimal("-99.99")

    with pytest.raises(DecodeError, match="malformed"):
        field(DECIMAL, body)


def test_a_record_of_an_older_schema_comes_in_the_shape_of_the_newest() -> None:
    fields = [{"name": "a", "type": "long"}, {"name": "b", "type": ["null", "string"], "default": None}]
    newest = {"type": "record", "name": "R", "fields": fields}
    codec = Codec(schemas={"R": newest}, ids={"R": 2}, writers=[WriterSchema(1, None, newest | {"fields": fields[:1]})])

    assert codec.decode(b"\x00\x00\x00\x00\x01\x06").value == {"a": 3, "b": None}
