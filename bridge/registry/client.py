"""Ask a Confluent-compatible registry: schemas of ids met while reading, and look-up and registration of our own."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import aiohttp

from bridge.registry.client_cache import DiskCache, Fetched
from bridge.registry.client_errors import RegistryUnavailableError, SchemaPendingError, SchemaUnknownError
from bridge.registry.client_missing import Missing
from bridge.registry.client_rest import NO_REGISTRY, Reply, Rest
from bridge.registry.store_form import meaning

Schema = Mapping[str, Any]

# Versions of one subject that are compared one by one when a look-up finds nothing, newest first; ours have few.
_VERSIONS_MAX: Final = 20


class RegistryClient:
    """One registry. `fetch` is for readers and keeps what it got; the rest is for pushing and for a start."""

    def __init__(self, rest: Rest, *, cache: DiskCache | None, now: Callable[[], float]) -> None:
        """Take working parts.

        Args:
            rest: Calls the registry.
            cache: Outlives the process; None fetches anew after every start.
            now: Steady clock in seconds.
        """
        self.url = rest.url
        self._rest = rest
        self._cache = cache
        self._now = now
        self._known: dict[int | UUID, Fetched] = {}
        self._missing = Missing()
        self._flights: dict[int | UUID, asyncio.Task[Fetched]] = {}

    async def fetch(self, key: int | UUID) -> Fetched:
        """Return the schema of an id or GUID: from memory, else from disk, else from the registry, asked once for all.

        Raises:
            RegistryUnavailableError: The registry gave no answer.
            SchemaPendingError: It does not know the id, yet.
            SchemaUnknownError: It did not know the id all through the grace, or it is no self-contained Avro record.
            RegistryRefusedError: It lets us not read.
        """
        known = self._known.get(key)
        if known is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._load(key))
            flight.add_done_callback(lambda done: self._landed(key, done))
        # A reader that gives up must not take the answer from the others.
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """End what is still asked for."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def look_up(self, subject: str, schema: Schema) -> int | None:
        """Return the id that a subject has for a schema that means the same, or None.

        Raises:
            RegistryUnavailableError, RegistryRefusedError: No answer, or one that is no answer to this.
        """
        reply = await self._rest.call("POST", f"subjects/{_quoted(subject)}", body=_posted(schema))
        if reply.found and (found := _same(reply, schema)) is not None:
            return found
        if not (reply.found or reply.missing):
            raise reply.refusal(subject)
        # Registered in another spelling, which some registries take for another schema.
        listed = await self._rest.call("GET", f"subjects/{_quoted(subject)}/versions")
        numbers = listed.document if listed.found and isinstance(listed.document, list) else []
        for number in sorted((each for each in numbers if isinstance(each, int)), reverse=True)[:_VERSIONS_MAX]:
            version = await self._rest.call("GET", f"subjects/{_quoted(subject)}/versions/{number}")
            if version.found and (found := _same(version, schema)) is not None:
                return found
        return None

    async def register(self, subject: str, schema: Schema) -> int:
        """Register a schema and return its id, having read it back.

        Raises:
            RegistryRefusedError: Not compatible (409), invalid, read-only, or not allowed.
            RegistryUnavailableError: No answer, or the id given is that of another schema.
        """
        reply = await self._rest.call("POST", f"subjects/{_quoted(subject)}/versions", body=_posted(schema))
        if not reply.found:
            raise reply.refusal(subject)
        schema_id = reply.fields().get("id")
        if not isinstance(schema_id, int):
            raise RegistryUnavailableError(self.url, NO_REGISTRY)
        text = await self._text(schema_id)
        if text is not None and not _means(text, schema):
            raise RegistryUnavailableError(self.url, f"id {schema_id} was given for {subject} but is another schema")
        return schema_id

    async def holds(self, schema_id: int, schema: Schema) -> bool:
        """Ask the registry, and no cache, whether an id stands for a schema that means the same."""
        text = await self._text(schema_id)
        return text is not None and _means(text, schema)

    async def read_only(self) -> bool:
        """True if the registry says that it takes nothing new; one that has no modes takes everything."""
        reply = await self._rest.call("GET", "mode")
        return reply.found and str(reply.fields().get("mode", "")).startswith("READONLY")

    async def _text(self, schema_id: int) -> str | None:
        path = f"schemas/ids/{schema_id}"
        reply = await self._rest.call("GET", path)
        if not (reply.found or reply.missing):
            raise reply.refusal(path)
        text = reply.fields().get("schema") if reply.found else None
        return text if isinstance(text, str) else None

    async def _load(self, key: int | UUID) -> Fetched:
        if self._cache is not None and (kept := await asyncio.to_thread(self._cache.load, key)) is not None:
            return kept
        if not self._missing.fresh(key, now=self._now()):
            path = f"schemas/guids/{key}" if isinstance(key, UUID) else f"schemas/ids/{key}"
            reply = await self._rest.call("GET", path)
            if reply.found:
                self._missing.forget(key)
                return await self._keep(key, _fetched(key, reply))
            if not reply.missing:
                raise reply.refusal(path)
            self._missing.note(key, now=self._now())
        if self._missing.poison(key):
            raise SchemaUnknownError(SchemaUnknownError.code)
        raise SchemaPendingError(SchemaPendingError.code)

    async def _keep(self, key: int | UUID, fetched: Fetched) -> Fetched:
        if self._cache is not None:
            await asyncio.to_thread(self._cache.keep, key, fetched)
        return fetched

    def _landed(self, key: int | UUID, flight: asyncio.Task[Fetched]) -> None:
        del self._flights[key]
        # Asking for the exception marks it as seen, also when every reader has given up.
        if not flight.cancelled() and flight.exception() is None:
            self._known[key] = flight.result()


@asynccontextmanager
async def open_client(
    url: str, *, credentials: tuple[str, str] | None = None, cache_dir: Path | None = None
) -> AsyncIterator[RegistryClient]:
    """Open a client of the registry at `url`; `cache_dir` keeps fetched schemas over a restart."""
    async with aiohttp.ClientSession() as session:
        rest = Rest(session, url, credentials=credentials, sleep=asyncio.sleep, jitter=random.random)
        cache = None if cache_dir is None else DiskCache(cache_dir, rest.url)
        client = RegistryClient(rest, cache=cache, now=time.monotonic)
        try:
            yield client
        finally:
            await client.close()


def _quoted(subject: str) -> str:
    return quote(subject, safe="")


def _posted(schema: Schema) -> dict[str, str]:
    """The kind is left out: Avro is what every registry takes when none is named, and some reject `null`."""
    return {"schema": json.dumps(schema, separators=(",", ":"))}


def _same(reply: Reply, schema: Schema) -> int | None:
    """Return the id in a reply that shows the schema we mean; one without the schema's text is taken at its word."""
    said = reply.fields()
    schema_id, text = said.get("id"), said.get("schema")
    same = text is None or (isinstance(text, str) and _means(text, schema))
    return schema_id if isinstance(schema_id, int) and same else None


def _means(text: str, schema: Schema) -> bool:
    """Compare what schemas say, never their texts: registries spell them anew."""
    try:
        return meaning(json.loads(text)) == meaning(schema)
    except (ValueError, RecursionError):
        return False


def _fetched(key: int | UUID, reply: Reply) -> Fetched:
    said = reply.fields()
    if (said.get("schemaType") or "AVRO") != "AVRO" or said.get("references"):
        raise SchemaUnknownError("schema_not_avro")
    try:
        schema = json.loads(said.get("schema", ""))
        guid = UUID(said["guid"]) if said.get("guid") else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise RegistryUnavailableError(reply.url, NO_REGISTRY) from None
    if not isinstance(schema, dict):
        raise SchemaUnknownError("schema_not_avro")
    given = said.get("id")
    return Fetched(key if isinstance(key, int) else given if isinstance(given, int) else None, guid, schema)
