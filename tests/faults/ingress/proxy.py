"""TCP proxies in front of brokers that can delay, throttle, block one direction, or corrupt bytes."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from bridge.dev.ports import HOST

_CHUNK_BYTES = 65_536
# Length and correlation id of a response (Kafka protocol guide, "Response Header").
_KEPT_BYTES = 8
# Zero seconds to linger: a close is a reset.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The faults of one direction."""

    delay_s: float = 0.0  # of each piece; pieces keep their order
    rate_bytes_s: float = 0.0  # maximum of one connection
    slice_bytes: int = 0  # largest piece that is forwarded at once
    reset_after_bytes: int = 0  # bytes since the connection was opened, after which both directions are reset
    garbled: bool = False  # bytes become ones, except the first of a piece: length and correlation id of a response
    deaf: bool = False  # nothing is forwarded until the trouble ends


NONE = Trouble()


class Proxy:
    """One listening port that forwards to another."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        # Trouble of what clients send; may be changed at any time, as `to_client`.
        self.to_broker, self.to_client = NONE, NONE
        self.resets = 0  # connections that were reset on purpose

    def make_trouble(self, *, to_broker: Trouble = NONE, to_client: Trouble = NONE) -> None:
        self.to_broker, self.to_client = to_broker, to_client
        self._changed.set()
        self._changed = asyncio.Event()

    def reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying = asyncio.create_task(self._carry(reader, writer))
        self._serving.add(carrying)
        await asyncio.wait({carrying})
        self._serving.discard(carrying)

    async def close(self) -> None:
        serving = list(self._serving)
        for carrying in serving:
            carrying.cancel()
        if serving:
            await asyncio.wait(serving)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            with contextlib.suppress(OSError):
                broker_reader, broker_writer = await asyncio.open_connection(HOST, self._upstream)
                ends.append(broker_writer)
                self._writers |= set(ends)
                pumps = (self._pump(reader, broker_writer, up=True), self._pump(broker_reader, writer, up=False))
                if not await _first_of(*pumps):
                    return
                self.resets += 1
            # Told to, or as the kernel of a dead broker would.
            for each in ends:
                _reset(each)
        finally:
            self._writers -= set(ends)
            for each in ends:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> bool:
        carried = 0
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                for piece in _slices(chunk, self._trouble(up=up).slice_bytes):
                    trouble = await self._let_through(up=up)
                    await asyncio.sleep(trouble.delay_s)
                    writer.write(_garbled(piece) if trouble.garbled else piece)
                    await writer.drain()
                    carried += len(piece)
                    if trouble.rate_bytes_s:
                        await asyncio.sleep(len(piece) / trouble.rate_bytes_s)
                    if 0 < trouble.reset_after_bytes <= carried:
                        return True
        return False

    async def _let_through(self, *, up: bool) -> Trouble:
        while (trouble := self._trouble(up=up)).deaf:
            await self._changed.wait()
        return trouble

    def _trouble(self, *, up: bool) -> Trouble:
        return self.to_broker if up else self.to_client


async def _first_of(*pumps: Coroutine[Any, Any, bool]) -> bool:
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return any(task.result() for task in ended)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@asynccontextmanager
async def proxies(ports: Mapping[int, tuple[int, int]]) -> AsyncIterator[dict[int, Proxy]]:
    async with AsyncExitStack() as stack:
        made = {}
        for name, (port, upstream) in ports.items():
            made[name] = Proxy(upstream)
            server = await asyncio.start_server(made[name].serve, HOST, port)
            stack.push_async_callback(_close, server, made[name])
        yield made


async def _close(server: asyncio.Server, proxy: Proxy) -> None:
    server.close()
    await asyncio.sleep(0)  # what has just come must have begun, to be ended
    await proxy.close()
    await server.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
    writer.transport.abort()


def _garbled(piece: bytes) -> bytes:
    return piece[:_KEPT_BYTES] + b"\xff" * (len(piece) - _KEPT_BYTES)


def _slices(chunk: bytes, most: int) -> list[bytes]:
    if not most:
        return [chunk]
    return [chunk[start : start + most] for start in range(0, len(chunk), most)]
