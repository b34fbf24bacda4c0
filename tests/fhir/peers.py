import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry
from yarl import URL

from consumers.fhir.bundle import id_in
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.sink import FhirMetrics, FhirServer, open_server
from consumers.options import read_options
from tests.endpoint import an_endpoint
from tests.fhir.hapi import request_headers

_OF_A_CONNECTION = {"host", "content-length", "connection", "transfer-encoding"}
_ANSWERED = ("Content-Type", "ETag", "Location")
TOKEN = "hunter2-of-the-ehr"
Resource = dict[str, Any]


class Peer:
    """A FHIR server, the fake or HAPI, as another client sees it; resources are named `Type/id`."""

    def __init__(self, url: str, *, ids: str = "client") -> None:
        self.url = url
        self.ids = ids  # who chooses the ids, as in the option

    async def get(self, place: str) -> Resource:
        return (await self._ask("GET", place))[1]

    async def put(self, resource: Resource) -> None:
        # Of two that write at the same moment HAPI refuses one, even without If-Match; it writes again.
        status: int = HTTPStatus.CONFLICT
        while status == HTTPStatus.CONFLICT:
            status, answer, _ = await self._ask("PUT", f"{resource['resourceType']}/{resource['id']}", resource)
        assert status < HTTPStatus.BAD_REQUEST, answer

    async def create(self, resource: Resource) -> str:
        *_, location = await self._ask("POST", resource["resourceType"], resource)
        return f"{resource['resourceType']}/{id_in(location)}"

    async def delete(self, place: str) -> None:
        await self._ask("DELETE", place)

    async def count(self, resource_type: str, identifier: str) -> int:
        return len(await self._found(f"{resource_type}?identifier={identifier}"))

    async def all(self, resource_type: str, target: str) -> list[Resource]:
        return await self._found(f"{resource_type}?target={target}")

    async def _found(self, query: str) -> list[Resource]:
        return [each["resource"] for each in (await self._ask("GET", query))[1].get("entry", [])]

    async def _ask(self, method: str, path: str, body: Resource | None = None) -> tuple[int, Resource, str]:
        async with (
            ClientSession(headers=request_headers(TOKEN)) as session,
            session.request(method, f"{self.url}/{path}", data=None if body is None else json.dumps(body)) as found,
        ):
            return found.status, json.loads(await found.read() or "{}"), found.headers.get("location", "")


class Late:
    """A proxy in front of a FHIR server that delays one write until its client has disconnected."""

    def __init__(self, server_url: str) -> None:
        self.url = ""
        self._server_url = server_url
        self.holding = asyncio.Event()  # set once a write waits
        self.after_write: Callable[[], Awaitable[None]] | None = None  # called between the next write and its response
        self._holds = False
        self._held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()

    def hold(self) -> None:
        self._holds = True

    async def release(self) -> None:
        self._held.set_result(None)
        await self._done.wait()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body, held = await request.read(), self._holds and request.method != "GET"
        if held:
            self._holds = False
            self.holding.set()
            await self._held
        path = request.path_qs.removeprefix(urlsplit(self.url).path)
        headers = {name: each for name, each in request.headers.items() if name.lower() not in _OF_A_CONNECTION}
        async with (
            ClientSession() as session,
            session.request(
                request.method, URL(f"{self._server_url}{path}", encoded=True), data=body, headers=headers
            ) as found,
        ):
            answer = web.Response(status=found.status, body=await found.read())
            answer.headers.update({name: found.headers[name] for name in _ANSWERED if name in found.headers})
        if held:
            self._done.set()
        elif request.method != "GET" and self.after_write is not None:
            after, self.after_write = self.after_write, None
            await after()
        return answer


@asynccontextmanager
async def a_late(server_url: str) -> AsyncIterator[Late]:
    late = Late(server_url)
    async with an_endpoint(late.answer) as url:
        late.url = url
        yield late


@asynccontextmanager
async def a_writer(url: str, token_file: Path, **options: str) -> AsyncIterator[FhirServer]:
    """Open the consumer's writer; a real server on a busy machine may respond slowly."""
    given = {"base_url": url, "allow_http": "true", "token_file": str(token_file), "timeout_s": "60", **options}
    read = read_options(FhirOptions, NAME, given)
    async with open_server(read, FhirMetrics(CollectorRegistry(), service=NAME)) as server:
        yield server
