"""A small real HTTP server that takes deliveries and acts by script: answers, resets, says nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Act = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One attempt as the receiver saw it."""

    id: str
    timestamp: int
    signature: str
    body: bytes


@dataclass
class Receiver:
    """Acts by script, one act for each attempt; the last one stands for all that follow."""

    script: list[Act]
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Note the attempt and act as the script says."""
        headers = request.headers
        self.seen.append(
            Seen(
                headers["webhook-id"],
                int(headers["webhook-timestamp"]),
                headers["webhook-signature"],
                await request.read(),
            )
        )
        act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await act(request)


def answers(status: int, body: object = None, **headers: str) -> Act:
    async def act(_: web.Request) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body or {}, status=status, headers=sent)

    return act


async def resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def receiving(*script: Act) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(script))
    app = web.Application()
    app.router.add_post("/webhooks/drx", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/drx"
    try:
        yield receiver
    finally:
        await runner.cleanup()
