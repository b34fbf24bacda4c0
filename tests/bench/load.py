"""The load generator, a separate process: raw sockets, requests signed beforehand, every response timed.

Run as `python -m tests.bench.load PORT FIRST COUNT`. Prints one JSON line.
"""

import asyncio
import gc
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import cast

import orjson
import uvloop

from bridge.dev.ports import HOST
from tests.bench.traffic import requests

CONNECTIONS = 64
# After this time the run fails.
SILENT_S = 30.0
_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Load:
    """The results of one run of a generator."""

    count: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    refused: list[int]
    cpu_s: float = 0.0  # of the server

    @property
    def per_s(self) -> float:
        return self.count / self.elapsed_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.count * 1e6


class Run:
    def __init__(self, *, first: int, count: int) -> None:
        self.first = first
        self.waiting = deque(enumerate(requests(first, count)))
        self.durations_s = [0.0] * count
        self.refused: list[int] = []
        self.left = count
        self.done = asyncio.Event()

    def answered(self, index: int, status: int, duration_s: float) -> None:
        self.durations_s[index] = duration_s
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            self.refused.append(self.first + index)
        self.left -= 1
        if not self.left:
            self.done.set()


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way, as long as any waits."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._index = -1
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail at once instead of waiting for a response that cannot arrive."""
        if self._run.left:
            sys.exit(f"the server closed a connection ({type(exc).__name__})")

    def send(self) -> None:
        """Send the next request."""
        self._index, request = self._run.waiting.popleft()
        self._since = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = buffer.lower().index(_LENGTH) + len(_LENGTH)
        if len(buffer) < end + 4 + int(buffer[at : buffer.index(b"\r", at)]):
            return
        self._buffer = b""
        self._run.answered(self._index, int(buffer[9:12]), time.perf_counter() - self._since)
        if self._run.waiting:
            self.send()


async def generate(port: int, first: int, count: int) -> Load:
    run = Run(first=first, count=count)
    # The requests exist as long as the process; scanning them in garbage collections would take CPU from the server.
    gc.freeze()
    gc.disable()
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(CONNECTIONS):
        _, connection = await loop.create_connection(lambda: Connection(run), HOST, port)
        opened.append(connection)
    began = time.perf_counter()
    for connection in opened:
        connection.send()
    async with asyncio.timeout(SILENT_S + count / 100):
        await run.done.wait()
    elapsed_s = time.perf_counter() - began
    ordered = sorted(run.durations_s)
    return Load(
        count=count,
        elapsed_s=elapsed_s,
        p50_ms=ordered[count // 2] * 1000,
        p99_ms=ordered[count * 99 // 100] * 1000,
        refused=run.refused,
    )


def main(port: str, first: str, count: str) -> None:
    work = generate(int(port), int(first), int(count))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(orjson.dumps(asdict(runner.run(work))).decode())  # noqa: T201 - the answer to the process that started us


if __name__ == "__main__":
    main(*sys.argv[1:])
