"""The proxies of the fault matrix carry what they should, and do what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.dev.ports import HOST, free_port
from tests.faults.ingress.proxy import Proxy, Trouble, proxies

HANG_S = 30.0
# An answer takes a hundredth of it.
QUIET_S = 0.1
SENT = bytes(range(256)) * 1_000


@pytest.fixture(autouse=True)
async def bounded() -> AsyncIterator[None]:
    async with asyncio.timeout(HANG_S):
        yield


@asynccontextmanager
async def before_an_echo() -> AsyncIterator[tuple[Proxy, int]]:
    """A proxy before a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(1_000):
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    port = free_port()
    async with await asyncio.start_server(echo, HOST, 0) as server:
        upstream = server.sockets[0].getsockname()[1]
        async with proxies({1: (port, upstream)}) as made:
            yield made[1], port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def echoed(port: int, sent: bytes = SENT) -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(sent)
        return await reader.readexactly(len(sent))


@pytest.mark.parametrize(
    "trouble", [Trouble(), Trouble(delay_s=0.001), Trouble(rate_bytes_s=5e6), Trouble(slice_bytes=999)]
)
async def test_whatever_is_slow_or_in_pieces_arrives_whole(trouble: Trouble) -> None:
    async with before_an_echo() as (proxy, port):
        proxy.make_trouble(to_broker=trouble, to_client=trouble)

        assert await echoed(port) == SENT


@pytest.mark.parametrize("side", ["to_broker", "to_client"])
async def test_a_deaf_side_holds_everything_back_until_the_trouble_ends(side: str) -> None:
    async with before_an_echo() as (proxy, port), connected(port) as (reader, writer):
        proxy.make_trouble(**{side: Trouble(deaf=True)})
        writer.write(b"now")
        answer = asyncio.create_task(reader.readexactly(3))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await asyncio.shield(answer)

        proxy.make_trouble()
        assert await answer == b"now"


async def test_a_connection_is_reset_when_it_has_carried_so_much() -> None:
    async with before_an_echo() as (proxy, port):
        proxy.make_trouble(to_broker=Trouble(slice_bytes=1_000, reset_after_bytes=50_000))

        with pytest.raises(ConnectionResetError):
            await echoed(port)
        assert proxy.resets == 1
        assert await echoed(port, SENT[:10_000]) == SENT[:10_000]


async def test_all_connections_can_be_reset_at_once() -> None:
    async with before_an_echo() as (proxy, port), connected(port) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        proxy.reset_all()

        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)


async def test_a_broker_that_is_away_is_away_behind_the_proxy_too() -> None:
    port = free_port()
    async with proxies({1: (port, free_port())}), connected(port) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
