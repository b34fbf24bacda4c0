"""Decode records to events, with the schemas of the bundled lock or of the configured registry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from bridge.avro.codec import UNKNOWN_SCHEMA_ID, Codec, Decoded, unknown_schema
from bridge.avro.schema_ids import RECORDS
from bridge.errors import BridgeError, DecodeError, TransientError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import UNRECOGNIZED_SCHEMA
from bridge.registry.address import RegistryAddress
from bridge.registry.client import RegistryClient, RegistryRefusedError, RegistryUnavailableError, open_client
from bridge.registry.loader import bundled
from bridge.registry.schemas import WriterSchema

# Codes of `DecodeError` besides those of the codec.
TOMBSTONE = "tombstone"
NO_KEY = "no_key"
BAD_KEY = "bad_key"
# The registry has the id, but its schema is not a self-contained Avro record.
SCHEMA_INVALID = "schema_invalid"


class EventDecoder:
    """A codec that asks the registry, if there is one, for schema ids that it does not know."""

    def __init__(self, codec: Codec, *, registry: RegistryClient | None) -> None:
        self._codec = codec
        self._registry = registry

    def decode(self, record: ConsumedRecord) -> Event:
        """Return the event in a record; a parked delivery is an event of type `drx.unrecognized`.

        Raises `UnknownRecordError` if this release does not know the type, and `DecodeError` with `tombstone`,
        `no_key`, `bad_key` or a code of `Codec.decode`. After `unknown_schema_id`, `learn` may help.
        """
        if record.value is None:
            raise DecodeError(TOMBSTONE)
        if record.key is None:
            raise DecodeError(NO_KEY)
        try:
            key = record.key.decode()
        except UnicodeDecodeError:
            raise DecodeError(BAD_KEY) from None
        decoded = self._codec.decode(record.value, record.headers)
        return _event(decoded.record, decoded.value, key)

    async def learn(self, record: ConsumedRecord) -> None:
        """Fetch the writer schema of a record from the registry, so that `decode` can read it.

        Raises `DecodeError` if no registry has it (yet) or it is invalid (`schema_invalid`), and a systemic
        `TransientError` if the registry does not respond.
        """
        key = None if record.value is None else unknown_schema(record.value, record.headers)
        if key is None or self._registry is None:
            raise DecodeError(UNKNOWN_SCHEMA_ID)
        try:
            fetched = await self._registry.fetch(key)
        except RegistryUnavailableError:
            raise TransientError("registry_unreachable", systemic=True) from None
        except RegistryRefusedError as exc:
            raise TransientError(exc.code, systemic=True) from None
        except BridgeError:  # the registry does not have this schema
            raise DecodeError(UNKNOWN_SCHEMA_ID) from None
        try:
            self._codec.learn(fetched)
        except ValueError:
            raise DecodeError(SCHEMA_INVALID) from None

    async def inspect(self, record: ConsumedRecord) -> Decoded:
        """Decode any record with a value, ours or not, for display; registry failures are `DecodeError`, too."""
        payload: bytes = record.value or b""
        try:
            return self._codec.decode(payload, record.headers)
        except DecodeError as exc:
            if exc.code != UNKNOWN_SCHEMA_ID:
                raise
        try:
            await self.learn(record)
        except TransientError as exc:
            raise DecodeError(exc.code) from None
        return self._codec.decode(payload, record.headers)


def _event(record: str, value: dict[str, Any], key: str) -> Event:
    """Build the event from the leading fields common to all records."""
    source: Any = value.get("source")
    received_at: Any = value.get("received_at")
    if record == RECORDS.get(value.get("event_type", "")):  # otherwise foreign, or of a newer release
        return Event(value["event_id"], value["event_type"], source, key, value["occurred_at"], received_at, value)
    if record == UNRECOGNIZED_SCHEMA:
        return Event(value["webhook_id"], UNRECOGNIZED_TYPE, source, key, received_at, received_at, value)
    raise UnknownRecordError


@asynccontextmanager
async def open_decoder(registry: RegistryAddress) -> AsyncIterator[EventDecoder]:
    """Open a decoder; with a registry URL it uses the registry's ids instead of those of the lock."""
    lock = bundled()
    if registry.url is None:
        writers = [WriterSchema(entry.id, UUID(entry.guid), entry.schema) for entry in lock.entries]
        yield EventDecoder(Codec(schemas=lock.schemas(), ids={}, writers=writers), registry=None)
        return
    async with open_client(registry) as client:
        yield EventDecoder(Codec(schemas=lock.schemas(), ids={}), registry=client)
