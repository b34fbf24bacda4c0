"""Encode and decode event values in Confluent's wire format, strictly in both directions."""

import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import fastavro  # noqa: TID251 -- this module wraps it
from fastavro.read import LOGICAL_READERS, SchemaResolutionError  # noqa: TID251 -- as above
from fastavro.schema import SchemaParseException  # noqa: TID251 -- as above

from bridge.avro.encoder import Encode, EncodeError, compile_encoder
from bridge.errors import DecodeError
from bridge.registry.schemas import Schema, WriterSchema

# Confluent, "Wire format", has two forms. Either the payload begins with a magic byte 0 and a four-byte big-endian id.
# Or a header of this name has a magic byte 1 and the schema's sixteen-byte GUID, and the payload is the bare Avro body.
_MAGIC = 0
_PREFIX = struct.Struct(">bI")
SCHEMA_HEADER = "__value_schema_id"
_GUID_MAGIC = 1
_GUID_SIZE = 17
_NAME = itemgetter(0)
# Placeholder for an unknown GUID; real ids are never negative.
NO_ID = -1

# Codes of `DecodeError`.
TRUNCATED = "truncated"
BAD_MAGIC = "bad_magic"
BAD_SCHEMA_HEADER = "bad_schema_header"
UNKNOWN_SCHEMA_ID = "unknown_schema_id"
MALFORMED = "malformed"
TRAILING_BYTES = "trailing_bytes"
SCHEMA_MISMATCH = "schema_mismatch"  # the writer's record has one of our names but an incompatible schema

# Exceptions of fastavro for bytes that do not match the writer's schema; tests search for others.
_MALFORMED = (EOFError, IndexError, ValueError, OverflowError)

# Cached: few distinct quantities occur, and often.
_DECIMALS = 8192
# More than any decimal of a foreign schema needs; conversion time grows with the square of the length.
_DECIMAL_MAX_BYTES = 64
_EXACT = Context(prec=3 * _DECIMAL_MAX_BYTES)


class Decoded(NamedTuple):
    """A decoded record, under the record name of its writer.

    `value` has every field of our newest schema of that name, or of the writer's if we have none.
    """

    record: str
    schema_id: int
    value: dict[str, Any]

    def __repr__(self) -> str:
        """Identify the record without its content."""
        return f"Decoded(record={self.record!r}, schema_id={self.schema_id})"


class Codec:
    """Encoders for the records we write, and schemas to read with; `learn` adds one (an id never changes meaning)."""

    def __init__(
        self, *, schemas: Mapping[str, Schema], ids: Mapping[str, int], writers: Iterable[WriterSchema] = ()
    ) -> None:
        """Compile encoders and readers once; all mappings are by full record name.

        `schemas` are the newest ones: values are read in their shape. `ids` are the registry's ids of exactly these
        schemas, used for writing. `writers` are further schemas that can be read.
        """
        self._readers = {record: _parse(schema) for record, schema in schemas.items()}
        self._encoders: dict[str, tuple[bytes, Encode]] = {
            record: (_PREFIX.pack(_MAGIC, schema_id), compile_encoder(self._readers[record]))
            for record, schema_id in ids.items()
        }
        # By writer: its schema and, if that differs, ours of the same name.
        self._writers: dict[int, tuple[dict[str, Any], dict[str, Any] | None]] = {}
        self._guids: dict[UUID, int] = {}
        for record, schema_id in ids.items():
            self.learn(WriterSchema(schema_id, None, schemas[record]))
        for writer in writers:
            self.learn(writer)

    def learn(self, writer: WriterSchema) -> None:
        """Make records of this writer schema readable; `ValueError` if it is not a self-contained Avro record."""
        schema = _parse(writer.schema)
        reader = self._readers.get(schema["name"])
        self._writers[writer.id] = schema, None if reader == schema else reader
        if writer.guid is not None:
            self._guids[writer.guid] = writer.id

    def encode(self, record: str, value: Mapping[str, Any] | bytes) -> bytes:
        """Return the payload of a value or encoded body; `EncodeError` if it does not fit, or the record has no id."""
        known = self._encoders.get(record)
        if known is None:
            raise EncodeError(record)
        prefix, encode = known
        return prefix + (value if isinstance(value, bytes) else encode(value))

    def decode(self, payload: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Decoded:
        """Decode a payload; a schema named in the (last) schema header takes precedence over one in the payload.

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
            raise DecodeError(MALFORMED) from None  # the exception's message may contain values
        except SchemaResolutionError:
            raise DecodeError(SCHEMA_MISMATCH) from None
        if body.tell() != len(payload):  # fastavro reads past them silently
            raise DecodeError(TRAILING_BYTES)
        return Decoded(writer["name"], schema_id, value)


def unknown_schema(payload: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> int | UUID | None:
    """Return the id or GUID to look up after `unknown_schema_id`; None if the record names neither."""
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
    """Return the decimal of a big-endian two's complement integer, of at most `precision` digits."""
    unscaled = int.from_bytes(content, "big", signed=True)
    if len(content) > _DECIMAL_MAX_BYTES or abs(unscaled) >= 10**precision:
        raise ValueError
    return Decimal(unscaled).scaleb(-scale, _EXACT)


def _decimal(content: bytes, schema: Any = None, _: object = None) -> Decimal:
    return _exact(content, schema["precision"], schema.get("scale", 0))


LOGICAL_READERS["bytes-decimal"] = _decimal  # fastavro's own accepts any length, and rounds


def _parse(schema: Schema) -> dict[str, Any]:
    """Parse a schema for fastavro and the encoder; every name becomes a full name."""
    try:
        parsed = fastavro.parse_schema(dict(schema))
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError):
        parsed = {}
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise ValueError("not a self-contained Avro record")
    return parsed
