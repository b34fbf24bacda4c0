"""The endpoint of the benchmark: `python -m tests.bench.endpoint PORT` responds 204 to each POST after 10 ms.

It checks nothing and costs little, since it shares the machine with the measured process.
"""

import asyncio
import re
import sys

import uvloop

from bridge.dev.ports import HOST

ANSWER_S = 0.01
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_length = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE).search


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond to the requests of one connection, one at a time."""
    try:
        while True:
            length = _length(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(int(length[1]) if length else 0)
            await asyncio.sleep(ANSWER_S)
            writer.write(_ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(_answer, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
