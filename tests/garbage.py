"""What takes connections where a broker should be, and answers each request with bytes that are no answer."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Length, key, version and correlation id of a request; the last is repeated by the answer.
_HEAD = struct.Struct(">IhhI")
# An array that is null, which the client takes for a list.
_ANSWER = b"\xff" * 96


class Garbage:
    """A port.

    Attributes:
        address: `host:port`.
        answered: Requests so far.
    """

    def __init__(self) -> None:
        self.address = ""
        self.answered = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, _key, _version, correlation = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                await reader.readexactly(size + 4 - _HEAD.size)
                writer.write(struct.pack(">II", 4 + len(_ANSWER), correlation) + _ANSWER)
                await writer.drain()
                self.answered += 1
        writer.transport.abort()


@asynccontextmanager
async def garbage() -> AsyncIterator[Garbage]:
    """Open such a port."""
    opened = Garbage()
    async with await asyncio.start_server(opened.serve, "127.0.0.1", 0) as server:
        opened.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield opened
