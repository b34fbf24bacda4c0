"""Faults of aiohttp's server that `runtime/http_server.py` mends: ours has none of them, and aiohttp's still has each.

Where a case of `AIOHTTP` passes after an upgrade, its mend may go (docs/adr/0009-aiohttp-server.md).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from bridge.dev.ports import HOST
from bridge.runtime.http_server import AHEAD_MAX, HardenedServer, Request, Response
from tests.waiting import HANG_S, until

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MARKER = b"PHI-MARKER"


@dataclass
class Serving:
    server: Any
    port: int
    names: list[list[bytes]] = field(default_factory=list)  # of the headers of each request
    begun: asyncio.Event = field(default_factory=asyncio.Event)  # set once a head has come without its body
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # until it is set nothing is answered


class Answering:
    def __init__(self) -> None:
        self.serving: Serving

    def check(self, _request: Request) -> None:
        """Have the body come."""
        self.serving.begun.set()

    def take(self, requests: Sequence[Request]) -> None:
        for request in requests:
            asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        self.serving.names.append([name for name, _ in request.raw_headers])
        await self.serving.gate.wait()
        request.respond(Response(200, b"{}"))


@asynccontextmanager
async def _serving(server: Any) -> AsyncIterator[Serving]:
    listener = await asyncio.get_running_loop().create_server(server, HOST, 0)
    serving = Serving(server, listener.sockets[0].getsockname()[1])
    serving.gate.set()
    try:
        async with asyncio.timeout(HANG_S):
            yield serving
    finally:
        listener.close()
        for connection in server.connections:
            connection.force_close()


@asynccontextmanager
async def ours() -> AsyncIterator[Serving]:
    handler = Answering()
    async with _serving(HardenedServer(handler, read_timeout_s=HANG_S, connections_max=8)) as handler.serving:
        yield handler.serving


@asynccontextmanager
async def aiohttps() -> AsyncIterator[Serving]:
    async def handle(request: web.BaseRequest) -> web.Response:
        serving.names.append([name for name, _ in request.raw_headers])
        serving.begun.set()
        await request.read()
        await serving.gate.wait()
        return web.json_response({})

    async with _serving(web.Server(handle)) as serving:
        yield serving


Starting = Callable[[], AbstractAsyncContextManager[Serving]]
AIOHTTP = pytest.param(aiohttps, marks=pytest.mark.xfail(strict=True, reason="a fault of aiohttp 3.14"), id="aiohttp's")
both = pytest.mark.parametrize("starting", [pytest.param(ours, id="ours"), AIOHTTP])


async def exchanged(port: int, *parts: bytes, wait_s: float = HANG_S) -> bytes:
    """Send parts one by one, each behind an answer to the last if it has one, and return all that comes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    received = b""
    try:
        for part in parts:
            writer.write(part)
            with contextlib.suppress(TimeoutError, ConnectionError):
                received += await asyncio.wait_for(reader.read(65_536), wait_s)
    finally:
        writer.transport.abort()
    return received


@both
async def test_a_trailer_becomes_no_header_of_the_next_request(starting: Starting) -> None:
    """Through a proxy that uses connections again, the next request is another client's."""
    async with starting() as serving:
        await exchanged(
            serving.port, CHUNKED + b"2\r\nab\r\n0\r\nX-Evil: 1\r\n\r\n", HEAD + b"Content-Length: 0\r\n\r\n"
        )

        assert serving.names[0] == [b"Host", b"Transfer-Encoding"]
        assert serving.names[1:] in ([], [[b"Host", b"Content-Length"]])


@both
async def test_a_body_in_tiny_chunks_is_not_read_to_its_end(starting: Starting) -> None:
    """Each chunk costs a microsecond or more: some connections of it leave no time for others."""
    async with starting() as serving:
        received = await exchanged(serving.port, CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n")

        assert received.startswith(b"HTTP/1.1 400 ")


@both
async def test_a_malformed_later_chunk_is_answered(starting: Starting) -> None:
    """The handler of aiohttp waits for the rest of that body as long as the connection lives."""
    async with starting() as serving:
        reader, writer = await asyncio.open_connection(HOST, serving.port)
        writer.write(CHUNKED + b"2\r\nab\r\n")
        await serving.begun.wait()
        writer.write(b"zz\r\nab\r\n0\r\n\r\n")
        try:
            received = await asyncio.wait_for(reader.read(100), HANG_S if starting is ours else 1)
        finally:
            writer.transport.abort()

        assert received.startswith(b"HTTP/1.1 400 ")


@both
async def test_requests_are_answered_behind_a_body_that_came_after_its_head(starting: Starting) -> None:
    """It counts as parsed ahead until the next: the queue that stops the parser is full for no one else."""
    async with starting() as serving:
        reader, writer = await asyncio.open_connection(HOST, serving.port)
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n")
        await serving.begun.wait()
        writer.write(b"{}")
        await reader.readuntil(b"{}")
        writer.write((HEAD + b"Content-Length: 0\r\n\r\n") * 32)
        try:
            async with asyncio.timeout(HANG_S if starting is ours else 1):
                for _ in range(32):
                    await reader.readuntil(b"{}")
        finally:
            writer.close()


@both
async def test_a_client_knows_that_what_it_sent_behind_an_upgrade_is_not_read(starting: Starting) -> None:
    """The parser drops it unless the protocol is one that aiohttp speaks, and nobody answers it."""
    async with starting() as serving:
        asked = HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"
        received = await exchanged(serving.port, asked + HEAD + b"Content-Length: 0\r\n\r\n")

        assert b"\r\nConnection: close\r\n" in received


@both
async def test_neither_answers_nor_lines_quote_what_is_malformed(
    starting: Starting, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with starting() as serving:
        body = b'{"name": "%b"}' % MARKER
        whole = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        received = await exchanged(serving.port, whole + b"BAD %b\r\n\r\n" % MARKER)

    assert b"HTTP/1.1 400 " in received
    assert MARKER not in received
    assert MARKER.decode() not in "".join(capfd.readouterr()) + caplog.text


@both
async def test_little_is_parsed_ahead_of_a_request_under_way(starting: Starting) -> None:
    """Thirty bytes of a request take kilobytes once they are parsed."""
    async with starting() as serving:
        serving.gate.clear()
        reader, writer = await asyncio.open_connection(HOST, serving.port)
        writer.write((HEAD + b"Content-Length: 0\r\n\r\n") * 100)
        await until(lambda: len(serving.names) == 1)
        (connection,) = serving.server.connections
        ahead = len(connection._messages)
        counted = getattr(serving.server, "held_bytes", 0)  # against the bound on bytes of all connections
        serving.gate.set()
        for _ in range(100):
            await reader.readuntil(b"{}")
        writer.close()

    assert ahead <= AHEAD_MAX + 1
    assert counted > 0


@both
async def test_connections_are_bounded(starting: Starting) -> None:
    async with starting() as serving:
        opened = [await asyncio.open_connection(HOST, serving.port) for _ in range(12)]
        answer = await exchanged(serving.port, HEAD + b"Content-Length: 0\r\n\r\n")
        connected = [connection for connection in serving.server.connections if connection.transport]
        for _, writer in opened:
            writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(connected) <= 8
