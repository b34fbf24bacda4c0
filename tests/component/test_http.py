"""Connections of the hardened server, seen from inside at moments that no client can choose."""

from __future__ import annotations

import asyncio

from aiohttp import web

from bridge.dev.ports import HOST
from bridge.runtime.http import Answer, HardenedServer

HANG_S = 30.0


class Overtaken(Answer):
    """An answer whose client has closed the connection before the server waits for the next request."""

    __slots__ = ()
    kept: bool | None = None

    async def prepare(self, request: web.BaseRequest) -> None:
        await super().prepare(request)
        Overtaken.kept = request._protocol.eof_received()  # type: ignore[func-returns-value]  # ours answers


async def test_a_connection_that_is_closed_right_after_its_answer_is_not_kept() -> None:
    """It would be until the keep-alive time is over, and so would every other of a sender that closes each time."""

    async def handle(_: object) -> Answer:
        return Overtaken(200, b"{}")

    server = HardenedServer(handle, read_timeout_s=HANG_S, keepalive_s=HANG_S)
    listener = await asyncio.get_running_loop().create_server(server, HOST, 0)
    async with asyncio.timeout(HANG_S), listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"{}")
        writer.close()
        await server.shutdown()

    assert Overtaken.kept is False
