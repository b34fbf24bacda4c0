"""The FHIR servers that one suite runs on, and what somebody else does there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from consumers.fhir.metrics import FhirMetrics
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.sink import FhirServer, open_server
from consumers.options import read_options
from tests.fhir.fake import FakeFhir
from tests.fhir.hapi import HapiServer

TOKEN = "hunter2-of-the-ehr"
Resource = dict[str, Any]


class Peer(Protocol):
    """A FHIR server as somebody else sees it; places are `Type/id`."""

    url: str

    async def get(self, place: str) -> Resource: ...
    async def put(self, resource: Resource) -> None: ...
    async def delete(self, place: str) -> None: ...


class FakePeer:
    """The fake."""

    def __init__(self, fake: FakeFhir) -> None:
        self.url = fake.url
        self._fake = fake

    async def get(self, place: str) -> Resource:
        return self._fake.get(place)

    async def put(self, resource: Resource) -> None:
        self._fake.put(resource)

    async def delete(self, place: str) -> None:
        self._fake.delete(place)


class HapiPeer:
    """The real one."""

    def __init__(self, server: HapiServer) -> None:
        self.url = server.url
        self.server = server

    async def get(self, place: str) -> Resource:
        return await asyncio.to_thread(self.server.call, "GET", place)

    async def put(self, resource: Resource) -> None:
        place = f"{resource['resourceType']}/{resource['id']}"
        # Of two that write at the same moment one is refused, even without If-Match, and writes again.
        status: int = HTTPStatus.CONFLICT
        while status == HTTPStatus.CONFLICT:
            status, answer = await asyncio.to_thread(self.server.ask, "PUT", place, resource)
        assert status < HTTPStatus.BAD_REQUEST, answer

    async def delete(self, place: str) -> None:
        await asyncio.to_thread(self.server.call, "DELETE", place)


@asynccontextmanager
async def a_writer(url: str, token_file: Path, **options: str) -> AsyncIterator[FhirServer]:
    """Open what the consumer writes with."""
    given = {"base_url": url, "allow_http": "true", "token_file": str(token_file), **options}
    read = read_options(FhirOptions, NAME, given)
    async with open_server(read, FhirMetrics(CollectorRegistry(), service=NAME)) as server:
        yield server
