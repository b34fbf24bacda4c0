"""Client of a Confluent-compatible schema registry (Confluent, Karapace, Apicurio, or `server`).

`fetch` is for readers: the schema of an id or GUID. An id never changes its meaning within a registry, so schemas are
cached. Unknown ids are requested again at the next call, since replicas of a registry lag behind its writers. The
consumer runtime decides how long to wait.

`look_up`, `register` and `holds` are for `schemas push`, `doctor` and startup. Schemas are compared by
`schemas.meaning`, never by text or fingerprint: registries reformat schemas, and fingerprints ignore logical types.

Each call is one HTTP request with a deadline, retried with jitter while the registry fails or is unreachable. All calls
are idempotent: registering the same schema twice gives the same id.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import UUID

from yarl import URL

from bridge.errors import BridgeError
from bridge.registry.address import RegistryAddress, plain_url
from bridge.registry.schemas import NotAvroError, Schema, WriterSchema, meaning
from bridge.runtime.backoff import Spread, backoff_s

# aiohttp takes 0.1 s to import, and most commands do not use a registry.
if TYPE_CHECKING:
    import aiohttp

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
# Seconds for one try. A healthy registry responds from memory in milliseconds.
TIMEOUT_S: Final = 2.0
# With the pauses below, at most about ten seconds; then the caller decides.
TRIES: Final = 4
DELAY_FIRST_S: Final = 0.1
DELAY_MAX_S: Final = 1.0
# Newest versions of a subject to compare one by one if a lookup finds nothing; our subjects have few.
_VERSIONS_MAX: Final = 20
# Characters of a registry's message, for one line on an operator's screen.
_DETAIL_MAX: Final = 500
_NO_REGISTRY: Final = "the server there is not a schema registry"


class RegistryUnavailableError(BridgeError):
    """No usable response: away, slow, failing, or not a registry. The same call may succeed later."""

    code = "registry_unavailable"
    retriable = True

    def __init__(self, url: str, why: str = "no response") -> None:
        super().__init__(f"registry {url}: {why}")


class RegistryRefusedError(BridgeError):
    """The registry permanently refuses the call."""

    code = "registry_refused"

    def __init__(self, what: str, *, status: int, detail: str) -> None:
        """Keep the HTTP status, which alone decides; `detail` is about schemas, never about records."""
        super().__init__(f"{what}: the registry responded {status} {detail}".rstrip())
        self.status = status


class SchemaUnknownError(BridgeError):
    """The registry does not know the id (`schema_unknown`), or it is not an Avro record (`schema_not_avro`)."""

    code = "schema_unknown"


@dataclass(frozen=True, slots=True)
class _Reply:
    """A response with a status below 500; `document` is None if the body is not JSON."""

    url: str
    status: int
    document: Any

    @property
    def found(self) -> bool:
        return self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def missing(self) -> bool:
        """True if subject, schema or endpoint does not exist; the body's code is not reliable."""
        return self.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE)

    def fields(self) -> Mapping[str, Any]:
        """Return the document if it is an object; else `RegistryUnavailableError`, as it is not from a registry."""
        if not isinstance(self.document, dict):
            raise RegistryUnavailableError(self.url, _NO_REGISTRY)
        return self.document

    def refusal(self, what: str) -> RegistryRefusedError:
        fields = self.document if isinstance(self.document, dict) else {}
        detail = f"(error_code {fields.get('error_code') or 0}) {fields.get('message') or ''}"
        return RegistryRefusedError(what, status=self.status, detail=detail[:_DETAIL_MAX])


class RegistryClient:
    """One registry."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        credentials: tuple[str, str] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        spread: Spread = random.uniform,
    ) -> None:
        """The caller closes `session`; `credentials` take precedence over user and password in `url`."""
        self.url = plain_url(url)
        self._session = session
        self._headers = {"Accept": f"{CONTENT_TYPE}, application/json"}
        known = URL(url)
        pair = credentials or ((known.user, known.password or "") if known.user else None)
        if pair:
            self._headers["Authorization"] = f"Basic {base64.b64encode(':'.join(pair).encode()).decode()}"
        self._sleep = sleep
        self._spread = spread
        self._known: dict[int | UUID, WriterSchema] = {}

    async def fetch(self, key: int | UUID) -> WriterSchema:
        """Return the schema of an id or GUID; `SchemaUnknownError` unless it is a self-contained record."""
        known = self._known.get(key)
        if known is not None:
            return known
        path = f"schemas/guids/{key}" if isinstance(key, UUID) else f"schemas/ids/{key}"
        reply = await self._call("GET", path)
        if reply.missing:
            raise SchemaUnknownError(SchemaUnknownError.code)
        if not reply.found:
            raise reply.refusal(path)
        found = self._known[key] = _schema_in(reply, key)
        return found

    async def look_up(self, subject: str, schema: Schema) -> int | None:
        """Return the id in a subject of a schema with the same meaning, or None."""
        path = f"subjects/{quote(subject, safe='')}"
        reply = await self._call("POST", path, body=_posted(schema))
        if reply.found and (found := _same(reply, schema)) is not None:
            return found
        if not (reply.found or reply.missing):
            raise reply.refusal(subject)
        # Registered with other formatting, which some registries treat as another schema.
        listed = await self._call("GET", f"{path}/versions")
        numbers = listed.document if listed.found and isinstance(listed.document, list) else []
        for number in sorted((each for each in numbers if isinstance(each, int)), reverse=True)[:_VERSIONS_MAX]:
            version = await self._call("GET", f"{path}/versions/{number}")
            if version.found and (found := _same(version, schema)) is not None:
                return found
        return None

    async def register(self, subject: str, schema: Schema) -> int:
        """Register a schema, read it back and return its id; `RegistryRefusedError` if incompatible or not allowed."""
        reply = await self._call("POST", f"subjects/{quote(subject, safe='')}/versions", body=_posted(schema))
        if not reply.found:
            raise reply.refusal(subject)
        schema_id = reply.fields().get("id")
        if not isinstance(schema_id, int):
            raise RegistryUnavailableError(self.url, _NO_REGISTRY)
        text = await self._text(schema_id)
        if text is not None and not _means(text, schema):
            raise RegistryUnavailableError(self.url, f"id {schema_id} was given for {subject} but is another schema")
        return schema_id

    async def holds(self, schema_id: int, schema: Schema) -> bool:
        """Return whether an id has a schema with the same meaning; asks the registry, without a cache."""
        text = await self._text(schema_id)
        return text is not None and _means(text, schema)

    async def _text(self, schema_id: int) -> str | None:
        path = f"schemas/ids/{schema_id}"
        reply = await self._call("GET", path)
        if not (reply.found or reply.missing):
            raise reply.refusal(path)
        text = reply.fields().get("schema") if reply.found else None
        return text if isinstance(text, str) else None

    async def _call(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> _Reply:
        """Retry until the registry responds with a status below 500 other than 429."""
        for attempt in range(TRIES):
            if attempt:
                await self._sleep(backoff_s(attempt, first_s=DELAY_FIRST_S, max_s=DELAY_MAX_S, spread=self._spread))
            reply = await self._try(method, path, body)
            if reply is not None:
                return reply
        raise RegistryUnavailableError(self.url, f"no response in {TRIES} tries; is it up, and is the URL right?")

    async def _try(self, method: str, path: str, body: Mapping[str, Any] | None) -> _Reply | None:
        import aiohttp  # noqa: PLC0415 - as above

        headers = self._headers if body is None else {**self._headers, "Content-Type": CONTENT_TYPE}
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.request(
                    method,
                    URL(f"{self.url}/{path}", encoded=True),
                    data=None if body is None else json.dumps(body),
                    headers=headers,
                ) as response,
            ):
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status == HTTPStatus.TOO_MANY_REQUESTS:
            return None
        try:
            return _Reply(self.url, response.status, json.loads(text))
        except (ValueError, RecursionError):
            return _Reply(self.url, response.status, None)


@asynccontextmanager
async def open_client(address: RegistryAddress) -> AsyncIterator[RegistryClient]:
    """Open a client of the registry at an address; `ConfigError` if the address is invalid."""
    import aiohttp  # noqa: PLC0415 - as above

    async with aiohttp.ClientSession() as session:
        yield RegistryClient(session, address.url or "", credentials=address.credentials())


def _posted(schema: Schema) -> dict[str, str]:
    """Return the request body; without `schemaType`, since Avro is the default and some registries reject `null`."""
    return {"schema": json.dumps(schema, separators=(",", ":"))}


def _same(reply: _Reply, schema: Schema) -> int | None:
    """Return the id of a reply whose schema has our meaning; a reply without a schema is trusted."""
    fields = reply.fields()
    schema_id, text = fields.get("id"), fields.get("schema")
    same = text is None or (isinstance(text, str) and _means(text, schema))
    return schema_id if isinstance(schema_id, int) and same else None


def _means(text: str, schema: Schema) -> bool:
    try:
        return meaning(json.loads(text)) == meaning(schema)
    except (ValueError, RecursionError, NotAvroError):
        return False


def _schema_in(reply: _Reply, key: int | UUID) -> WriterSchema:
    fields = reply.fields()
    if (fields.get("schemaType") or "AVRO") != "AVRO" or fields.get("references"):
        raise SchemaUnknownError("schema_not_avro")
    try:
        schema = json.loads(fields.get("schema", ""))
        guid = UUID(fields["guid"]) if fields.get("guid") else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise RegistryUnavailableError(reply.url, _NO_REGISTRY) from None
    if not isinstance(schema, dict):
        raise SchemaUnknownError("schema_not_avro")
    schema_id = key if isinstance(key, int) else fields.get("id")
    if not isinstance(schema_id, int):
        raise SchemaUnknownError(SchemaUnknownError.code)
    return WriterSchema(schema_id, guid, schema)
