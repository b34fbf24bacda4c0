"""The endpoint of the bench: `python -m tests.bench.endpoint PORT DELAY_S` answers each POST 204 after that time.

It checks nothing and costs little, since it shares the machine with what is measured.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

from bridge.dev.ports import HOST

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_length = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE).search


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _length(head)
        if end and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            asyncio.get_running_loop().call_later(self._delay_s, self._answer)

    def _answer(self) -> None:
        assert self._transport is not None
        self._transport.write(_ANSWER)


async def serve(port: int, delay_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(delay_s), HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
