"""Event value to Kafka bytes and back, in Confluent's wire format; strict both ways."""

import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import fastavro  # noqa: TID251 -- this is the door
from fastavro.read import LOGICAL_READERS, SchemaResolutionError  # noqa: TID251 -- as above
from fastavro.schema import SchemaParseException  # noqa: TID251 -- as above

from bridge.avro.encoder import Encode, EncodeError, compile_encoder
from bridge.errors import DecodeError
from bridge.registry.schemas import Schema, WriterSchema

# Confluent, "Wire format", has two forms. A magic byte 0 and a four-byte big-endian id lead the payload. Or a header of
# this name has a magic byte 1 and the schema's sixteen-byte GUID, and the payload is the bare Avro body.
_MAGIC = 0
_PREFIX = struct.Struct(">bI")
SCHEMA_HEADER = "__value_schema_id"
_GUID_MAGIC = 1
_GUID_SIZE = 17
_NAME = itemgetter(0)
# Stands for a GUID that no known schema has; ids are not negative.
NO_ID = -1

# Codes of `DecodeError`.
TRUNCATED = "truncated"
BAD_MAGIC = "bad_magic"
BAD_SCHEMA_HEADER = "bad_schema_header"
UNKNOWN_SCHEMA_ID = "unknown_schema_id"
MALFORMED = "malformed"
TRAILING_BYTES = "trailing_bytes"
SCHEMA_MISMATCH = "schema_mismatch"  # written with a record of our name that the contract never allowed

# Exceptions for bytes that are no value of the writer's schema; tests search for others.
_MALFORMED = (EOFError, IndexError, ValueError, OverflowError)

# Quantities are few and come again and again.
_DECIMALS = 8192
# More than any decimal of a foreign schema needs; converting takes time that grows with the square of the length.
_DECIMAL_MAX_BYTES = 64
_EXACT = Context(prec=3 * _DECIMAL_MAX_BYTES)


class Decoded(NamedTuple):
    """One decoded record, named as its writer did.

    `value` has every field of our newest schema of that name, or of the writer's if we have none.
    """

    record: str
    schema_id: int
    value: dict[str, Any]

    def __repr__(self) -> str:
        """Identify the record without its content."""
        return f"Decoded(record={self.record!r}, schema_id={self.schema_id})"


class Codec:
    """The records we write, and all schemas that we read; `learn` adds to them, as ids never change their meaning."""

    def __init__(
        self, *, schemas: Mapping[str, Schema], ids: Mapping[str, int], writers: Iterable[WriterSchema] = ()
    ) -> None:
        """Compile once what every record will need; all by the full names of records.

        `schemas` are the newest, in whose shape values are read; `ids` those of exactly these in the registry in use,
        for what may be written; `writers` can be read besides.
        """
        self._readers = {record: _parse(schema) for record, schema in schemas.items()}
        self._encoders: dict[str, tuple[bytes, Encode]] = {
            record: (_PREFIX.pack(_MAGIC, schema_id), compile_encoder(self._readers[record]))
            for record, schema_id in ids.items()
        }
        # Of each writer its schema and, if that is another one, ours of the same name.
        self._writers: dict[int, tuple[dict[str, Any], dict[str, Any] | None]] = {}
        self._guids: dict[UUID, int] = {}
        for record, schema_id in ids.items():
            self.learn(WriterSchema(schema_id, None, schemas[record]))
        for writer in writers:
            self.learn(writer)

    def learn(self, writer: WriterSchema) -> None:
        """Make records of this writer readable; `ValueError` if it is no self-contained Avro record."""
        schema = _parse(writer.schema)
        reader = self._readers.get(schema["name"])
        self._writers[writer.id] = schema, None if reader == schema else reader
        if writer.guid is not None:
            self._guids[writer.guid] = writer.id

    def encode(self, record: str, value: Mapping[str, Any] | bytes) -> bytes:
        """Return the payload of a value or encoded body; `EncodeError` if it does not fit, or its record has no id."""
        known = self._encoders.get(record)
        if known is None:
            raise EncodeError(record)
        prefix, encode = known
        return prefix + (value if isinstance(value, bytes) else encode(value))

    def decode(self, payload: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Decoded:
        """Invert `encode`; a schema named in a header, the last of its name, counts before one in the payload.

        Raises:
            DecodeError: `truncated`, `bad_magic`, `bad_schema_header`, `unknown_schema_id`, `malformed`,
                `trailing_bytes` or `schema_mismatch`.
        """
        name, start = _schema_named(payload, headers)
        schema_id = name if isinstance(name, int) else self._guids.get(name, NO_ID)
        if (known := self._writers.get(schema_id)) is None:
            raise DecodeError(UNKNOWN_SCHEMA_ID)
        writer, reader = known
        body = io.BytesIO(payload)
        body.seek(start)
        try:
            value: Any = fastavro.schemaless_reader(body, writer, reader)
        except _MALFORMED:
            raise DecodeError(MALFORMED) from None  # the message may hold values
        except SchemaResolutionError:
            raise DecodeError(SCHEMA_MISMATCH) from None
        if body.tell() != len(payload):  # fastavro reads past them silently
            raise DecodeError(TRAILING_BYTES)
        return Decoded(writer["name"], schema_id, value)


def unknown_schema(payload: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> int | UUID | None:
    """Return what to ask a registry for after `unknown_schema_id`: an id, a GUID, or None if the record names none."""
    try:
        return _schema_named(payload, headers)[0]
    except DecodeError:
        return None


def _schema_named(payload: bytes, headers: Sequence[tuple[str, bytes]]) -> tuple[int | UUID, int]:
    """Return the id or GUID of the writer's schema, and where the body starts."""
    if SCHEMA_HEADER in map(_NAME, headers):
        content = dict(headers)[SCHEMA_HEADER]
        if len(content) != _GUID_SIZE or content[0] != _GUID_MAGIC:
            raise DecodeError(BAD_SCHEMA_HEADER)
        return UUID(bytes=content[1:]), 0
    if len(payload) < _PREFIX.size:
        raise DecodeError(TRUNCATED)
    magic, schema_id = _PREFIX.unpack_from(payload)
    if magic != _MAGIC:
        raise DecodeError(BAD_MAGIC)
    return schema_id, _PREFIX.size


@lru_cache(_DECIMALS)
def _exact(content: bytes, precision: int, scale: int) -> Decimal:
    """Return the decimal that a big-endian two's complement stands for, of at most `precision` digits."""
    unscaled = int.from_bytes(content, "big", signed=True)
    if len(content) > _DECIMAL_MAX_BYTES or abs(unscaled) >= 10**precision:
        raise ValueError
    return Decimal(unscaled).scaleb(-scale, _EXACT)


def _decimal(content: bytes, schema: Any = None, _: object = None) -> Decimal:
    return _exact(content, schema["precision"], schema.get("scale", 0))


LOGICAL_READERS["bytes-decimal"] = _decimal  # fastavro's own converts any length, and rounds beyond the precision


def _parse(schema: Schema) -> dict[str, Any]:
    """Parse for fastavro and for the encoder; afterwards every name is a full name."""
    try:
        parsed = fastavro.parse_schema(dict(schema))
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError):
        parsed = {}
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise ValueError("not a self-contained Avro record")
    return parsed
