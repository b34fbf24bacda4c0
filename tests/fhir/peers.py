"""The FHIR servers that one suite runs on, and what somebody else does there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry
from yarl import URL

from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.sink import FhirMetrics, FhirServer, open_server
from consumers.options import read_options
from tests.endpoint import an_endpoint
from tests.fhir.fake import FakeFhir
from tests.fhir.hapi import HapiServer

_OF_A_CONNECTION = {"host", "content-length", "connection", "transfer-encoding"}
_ANSWERED = ("Content-Type", "ETag", "Location")
TOKEN = "hunter2-of-the-ehr"
Resource = dict[str, Any]


class Peer(Protocol):
    """A FHIR server as somebody else sees it; places are `Type/id`.

    Attributes:
        ids: Who chooses them, as the option.
    """

    url: str
    ids: str

    async def get(self, place: str) -> Resource: ...
    async def put(self, resource: Resource) -> None: ...
    async def create(self, resource: Resource) -> str: ...
    async def delete(self, place: str) -> None: ...
    async def count(self, resource_type: str, identifier: str) -> int: ...
    async def all(self, resource_type: str, target: str) -> list[Resource]: ...


class FakePeer:
    """The fake."""

    def __init__(self, fake: FakeFhir) -> None:
        self.url = fake.url
        self.ids = "server" if fake.chooses_ids else "client"
        self._fake = fake

    async def get(self, place: str) -> Resource:
        return self._fake.all().get(place, {"resourceType": "OperationOutcome"})

    async def put(self, resource: Resource) -> None:
        self._fake.put(resource)

    async def create(self, resource: Resource) -> str:
        identity = f"p-{uuid4().hex}"
        self._fake.put({**resource, "id": identity})
        return f"{resource['resourceType']}/{identity}"

    async def delete(self, place: str) -> None:
        self._fake.delete(place)

    async def count(self, resource_type: str, identifier: str) -> int:
        system, _, value = identifier.partition("|")
        return sum(
            each["resourceType"] == resource_type and {"system": system, "value": value} in each["identifier"]
            for each in self._fake.all().values()
        )

    async def all(self, resource_type: str, target: str) -> list[Resource]:
        return [
            each
            for each in self._fake.all().values()
            if each["resourceType"] == resource_type and {"reference": target} in each["target"]
        ]


class HapiPeer:
    """The real one."""

    def __init__(self, server: HapiServer, *, chooses_ids: bool = False) -> None:
        self.url = server.ids_url if chooses_ids else server.url
        self.ids = "server" if chooses_ids else "client"
        self._server = server

    async def get(self, place: str) -> Resource:
        return await asyncio.to_thread(self._server.call, "GET", place)

    async def put(self, resource: Resource) -> None:
        place = f"{resource['resourceType']}/{resource['id']}"
        # Of two that write at the same moment one is refused, even without If-Match, and writes again.
        status: int = HTTPStatus.CONFLICT
        while status == HTTPStatus.CONFLICT:
            status, answer = await asyncio.to_thread(self._server.ask, "PUT", place, resource)
        assert status < HTTPStatus.BAD_REQUEST, answer

    async def create(self, resource: Resource) -> str:
        made = await asyncio.to_thread(self._server.call, "POST", resource["resourceType"], resource)
        return f"{resource['resourceType']}/{made['id']}"

    async def delete(self, place: str) -> None:
        await asyncio.to_thread(self._server.call, "DELETE", place)

    async def count(self, resource_type: str, identifier: str) -> int:
        return len(await self._found(f"{resource_type}?identifier={identifier}"))

    async def all(self, resource_type: str, target: str) -> list[Resource]:
        return await self._found(f"{resource_type}?target={target}")

    async def _found(self, query: str) -> list[Resource]:
        answer = await asyncio.to_thread(self._server.call, "GET", query)
        return [each["resource"] for each in answer.get("entry", [])]


class Late:
    """A proxy in front of a FHIR server that has one write wait, and lets it through when its client has gone.

    Attributes:
        holding: Set once one waits.
        after_write: Called after the next write was done, and before it is answered.
    """

    def __init__(self, server_url: str) -> None:
        self.url = ""
        self._server_url = server_url
        self.holding = asyncio.Event()
        self.after_write: Callable[[], Awaitable[None]] | None = None
        self._holds = False
        self._held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done = asyncio.Event()

    def hold(self) -> None:
        """Have the next write wait for `release`."""
        self._holds = True

    async def release(self) -> None:
        """Let it through, and return when the server has answered it."""
        self._held.set_result(None)
        await self._done.wait()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass one request on."""
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
    """Open one on a free port."""
    late = Late(server_url)
    async with an_endpoint(late.answer) as url:
        late.url = url
        yield late


@asynccontextmanager
async def a_writer(url: str, token_file: Path, **options: str) -> AsyncIterator[FhirServer]:
    """Open what the consumer writes with."""
    given = {"base_url": url, "allow_http": "true", "token_file": str(token_file), **options}
    read = read_options(FhirOptions, NAME, given)
    async with open_server(read, FhirMetrics(CollectorRegistry(), service=NAME)) as server:
        yield server
