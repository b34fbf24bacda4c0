"""The load generator, a process of its own: raw sockets, requests signed beforehand, every answer timed.

Run as `python -m tests.bench.load PORT FIRST COUNT RATE`; a rate of 0 is a closed loop. Prints one JSON line.
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
# An answer that takes longer will not come; the run fails.
SILENT_S = 30.0
# Between two looks whether a connection is free, or a request due; each costs the server a little of its core.
_LOOK_S = 0.0005
_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the generator saw; in an open loop a time counts from when its request was due.

    Attributes:
        cpu_s: What it cost the server.
    """

    count: int
    elapsed_s: float
    p50_ms: float
    p99_ms: float
    refused: list[int]
    cpu_s: float = 0.0

    @property
    def per_s(self) -> float:
        return self.count / self.elapsed_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.count * 1e6


class Run:
    def __init__(self, *, first: int, count: int, rate: float) -> None:
        self.first = first
        self.waiting = deque(enumerate(requests(first, count, rate=rate)))
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
    """One keep-alive connection with at most one request under way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._index = -1
        self._since = 0.0
        # Closed loop: goes on by itself. Open loop: tells that it is free.
        self.free: deque[Connection] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail at once rather than wait for an answer that cannot come."""
        if self._run.left:
            sys.exit(f"the server closed a connection ({type(exc).__name__})")

    def send(self, due: float = 0.0) -> None:
        """Send the next request; its time counts from `due` if that is given."""
        self._index, request = self._run.waiting.popleft()
        self._since = due or time.perf_counter()
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
        if self.free is not None:
            self.free.append(self)
        elif self._run.waiting:
            self.send()


async def generate(port: int, first: int, count: int, rate: float) -> Load:
    run = Run(first=first, count=count, rate=rate)
    # The requests live as long as the process; looking through them again and again would cost the server its core.
    gc.freeze()
    gc.disable()
    loop = asyncio.get_running_loop()
    opened = []
    for _ in range(CONNECTIONS):
        _, connection = await loop.create_connection(lambda: Connection(run), HOST, port)
        opened.append(connection)
    began = time.perf_counter()
    if rate:
        await _at_rate(run, opened, rate)
    else:
        for connection in opened:
            connection.send()
    async with asyncio.timeout(SILENT_S + count / (rate or 100)):
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


async def _at_rate(run: Run, opened: list[Connection], rate: float) -> None:
    """Open loop: each request is due at its time, and waits for a free connection on its own account."""
    free = deque(opened)
    for connection in opened:
        connection.free = free
    began = time.perf_counter()
    sent = 0
    while run.waiting:
        now = time.perf_counter()
        while run.waiting and free and began + sent / rate <= now:
            free.popleft().send(began + sent / rate)
            sent += 1
        due = began + sent / rate
        await asyncio.sleep(max(_LOOK_S, due - time.perf_counter()))


def main(port: str, first: str, count: str, rate: str) -> None:
    work = generate(int(port), int(first), int(count), float(rate))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(orjson.dumps(asdict(runner.run(work))).decode())  # noqa: T201 - the answer to the process that started us


if __name__ == "__main__":
    main(*sys.argv[1:])
