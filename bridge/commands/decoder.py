"""Decodes whatever a topic of ours holds: by the bundled lock, or by the registry that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from bridge.errors import BridgeError, DecodeError
from bridge.kafka.codec import UNKNOWN_SCHEMA_ID, Codec, Decoded, Writer, unknown_schema
from bridge.registry.client import RegistryClient, open_client
from bridge.registry.client_credentials import read_credentials
from bridge.registry.loader import bundled
from bridge.settings import Registry

# The registry has the id, but what it means is no self-contained Avro record.
SCHEMA_INVALID = "schema_invalid"


class Decoder:
    """A codec that asks the registry for what it does not know, if there is one."""

    def __init__(self, codec: Codec, *, registry: RegistryClient | None) -> None:
        """Take a codec and, for its unknown ids, a registry."""
        self._codec = codec
        self._registry = registry

    async def decode(self, payload: bytes, headers: Sequence[tuple[str, bytes]]) -> Decoded:
        """Decode one record.

        Raises:
            DecodeError: With the code that says why, also if it is the registry that does not help.
        """
        try:
            return self._codec.decode(payload, headers)
        except DecodeError as exc:
            key = unknown_schema(payload, headers) if exc.code == UNKNOWN_SCHEMA_ID else None
            if key is None or self._registry is None:
                raise
        try:
            fetched = await self._registry.fetch(key)
        except BridgeError as exc:
            raise DecodeError(exc.code) from None
        if fetched.id is None:
            raise DecodeError(UNKNOWN_SCHEMA_ID)
        try:
            self._codec.learn(Writer(fetched.id, fetched.guid, fetched.schema))
        except ValueError:
            raise DecodeError(SCHEMA_INVALID) from None
        return self._codec.decode(payload, headers)


@asynccontextmanager
async def open_decoder(registry: Registry) -> AsyncIterator[Decoder]:
    """Open a decoder; with a registry URL the ids are that registry's and the lock's mean nothing."""
    lock = bundled()
    if registry.url is None:
        writers = [Writer(entry.id, UUID(entry.guid), entry.schema) for entry in lock.entries]
        yield Decoder(Codec(schemas=lock.schemas(), ids={}, writers=writers), registry=None)
        return
    async with open_client(
        registry.url, credentials=read_credentials(registry.username_file, registry.password_file)
    ) as client:
        yield Decoder(Codec(schemas=lock.schemas(), ids={}), registry=client)
