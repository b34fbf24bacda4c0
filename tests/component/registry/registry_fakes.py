"""Foreign registries for the client's tests: one that misbehaves as told, and a clock without waiting."""

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.registry.client import TIMEOUT_S, RegistryClient

Answer = tuple[int, object]

# A schema that is none of ours.
ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [{"name": "id", "type": "long"}],
}


class Clock:
    """Notes the pauses between tries, which take no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


class FakeRegistry:
    """Gives the answers set for a path in turn, the last one for ever, and Apicurio's 404 for any other path."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.hangs = False
        self.content_type = "application/json"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.Response:
        key = f"{request.method} {request.raw_path}"
        self.asked[key] += 1
        self.authorizations.add(request.headers.get("Authorization"))
        self.arrived.set()
        if self.hangs:
            await self.release.wait()
        answers = self.answers.get(key, [(404, {"error_code": 0, "message": "No artifact"})])
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type=self.content_type)


class Connector:
    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._servers: list[TestServer] = []

    async def __call__(
        self,
        app: web.Application,
        *,
        credentials: tuple[str, str] | None = None,
        path: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> RegistryClient:
        server = TestServer(app)
        await server.start_server()
        self._servers.append(server)
        return self.client(f"{server.make_url('/')}{path}", credentials=credentials, timeout_s=timeout_s)

    def client(
        self, url: str, *, credentials: tuple[str, str] | None = None, timeout_s: float = TIMEOUT_S
    ) -> RegistryClient:
        """Return one more client of what is served at `url`, with no memory of the first."""
        return RegistryClient(
            self._session,
            url,
            credentials=credentials,
            timeout_s=timeout_s,
            sleep=self._clock.sleep,
            spread=lambda low, high: (low + high) / 2,
        )

    async def close(self) -> None:
        for server in self._servers:
            await server.close()


def shown(schema: object, **more: object) -> Answer:
    return 200, {"schema": json.dumps(schema), **more}
