"""Any bytes as a record: refused with a known code, or a value that survives encoding and decoding."""

from typing import Any
from uuid import UUID

from bridge.avro.codec import SCHEMA_HEADER, Codec, unknown_schema
from bridge.avro.encoder import EncodeError
from bridge.errors import DecodeError
from bridge.registry.loader import bundled
from bridge.registry.schemas import WriterSchema
from tests.fuzz.choices import Choices

WORDS = (b"\x00\x00\x00\x00", b"\x02", b"\x80\x80\x80\x80\x10", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x01")

LOCK = bundled()
SCHEMAS = LOCK.schemas()
RECORDS = sorted(SCHEMAS)
# As an earlier release would have written it.
OLDER_FROM = 100_000
CODES = (
    *("truncated", "bad_magic", "bad_schema_header", "unknown_schema_id"),
    *("malformed", "trailing_bytes", "schema_mismatch"),
)


def older(record: str) -> dict[str, Any]:
    """Return the schema without the last of its fields that has a default."""
    fields = list(SCHEMAS[record]["fields"])
    last = max(place for place, field in enumerate(fields) if "default" in field)
    return {**SCHEMAS[record], "fields": fields[:last] + fields[last + 1 :]}


WRITERS = [
    *(WriterSchema(entry.id, UUID(entry.guid), entry.schema) for entry in LOCK.entries),
    *(WriterSchema(OLDER_FROM + place, UUID(int=place), older(record)) for place, record in enumerate(RECORDS)),
]
CODEC = Codec(schemas=SCHEMAS, ids=LOCK.ids(), writers=WRITERS)


def check(content: bytes) -> None:
    choices = Choices(content)
    way = choices.below(4)
    if way == 3:
        headers = [(SCHEMA_HEADER, choices.one((b"\x01" + WRITERS[0].guid.bytes, choices.chunk(20))))]  # type: ignore[union-attr] # all have one
        decode(choices.rest(), headers)
        return
    if way == 2:
        decode(choices.rest(), [])
        return
    place = choices.below(len(RECORDS))
    record, body = RECORDS[place], choices.rest()
    schema_id = OLDER_FROM + place if way else LOCK.ids()[record]
    value = decode(b"\0" + schema_id.to_bytes(4, "big") + body, [])
    if value is None:
        return
    try:
        encoded = CODEC.encode(record, value)
    except EncodeError:  # an `int` of more than 32 bits, which fastavro reads
        return
    assert CODEC.decode(encoded).value == value


def decode(payload: bytes, headers: list[tuple[str, bytes]]) -> dict[str, Any] | None:
    """Return the value, or None when the bytes are refused."""
    try:
        return CODEC.decode(payload, headers).value
    except DecodeError as exc:
        code = exc.code
    assert code in CODES
    if code == "unknown_schema_id":
        assert unknown_schema(payload, headers) is not None
    return None
