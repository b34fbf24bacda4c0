"""Two kinds of traffic that outlive a fault and remember what they were promised."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from uuid import uuid4

import aiohttp

from bridge.kafka.transport import ConsumedRecord
from tests.builders import a_body, signed_headers
from tests.integration.ingress_process import IngressProcess, deliver, header

# Between two attempts; shorter than `Retry-After` asks for, so that more of them fall into a fault.
RETRY_S = 0.1


class Senders:
    """One sender per key; each sends its next event when the last was answered 2xx, and until then the same again.

    Attributes:
        promised: Key to the ids that were answered 2xx, in order.
        refused: Answers that a sender of genuine deliveries must never get.
    """

    def __init__(self, ingress: IngressProcess, *, keys: int) -> None:
        """Invent the keys."""
        self._ingress = ingress
        self.promised: dict[str, list[str]] = {f"rx-{uuid4().hex}": [] for _ in range(keys)}
        self.refused: list[int] = []
        self._ended = asyncio.Event()
        self._progress = asyncio.Condition()

    async def run(self) -> None:
        """Send until `end`, or until nobody answers any more."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for key in self.promised:
                group.create_task(self._send_all(session, key))

    def end(self) -> None:
        """Let everyone finish what is under way."""
        self._ended.set()

    async def more(self, count: int) -> None:
        """Return when `count` more deliveries have been answered 2xx since now."""
        wanted = self._taken + count
        async with self._progress:
            await self._progress.wait_for(lambda: self._taken >= wanted)

    @property
    def _taken(self) -> int:
        return sum(map(len, self.promised.values()))

    async def _send_all(self, session: aiohttp.ClientSession, key: str) -> None:
        with suppress(aiohttp.ClientConnectionError):  # the process is gone: whatever was under way has no promise
            while not self._ended.is_set():
                await self._send(session, key)

    async def _send(self, session: aiohttp.ClientSession, key: str) -> None:
        event_id = f"{key}-{len(self.promised[key])}"
        body = a_body(id=event_id, data_prescription_id=key)
        while True:
            status = (await deliver(session, self._ingress, body, webhook_id=event_id)).status
            if status in {200, 202}:
                break
            if status != 503:
                self.refused.append(status)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), RETRY_S)
            if self._ended.is_set():
                return
        async with self._progress:
            self.promised[key].append(event_id)
            self._progress.notify_all()


class Traffic:
    """Open-loop traffic on kept-alive connections, by a client that knows when a request has left it.

    Attributes:
        sent: Ids whose every byte the kernel has taken.
        statuses: Id to the status answered; no entry where the connection ended instead.
        flowing: Set when enough has been answered for all connections to be in use.
    """

    def __init__(self, ingress: IngressProcess) -> None:
        """Open nothing yet."""
        self._ingress = ingress
        self._address = ingress.url.removeprefix("http://").split(":")
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._closed = False
        self._numbers = count()
        self.sent: list[str] = []
        self.statuses: dict[str, int] = {}
        self.flowing = asyncio.Event()

    async def more(self, number: int) -> None:
        """Return when `number` more requests have left, answered or not."""
        wanted = len(self.sent) + number
        while len(self.sent) < wanted:  # noqa: ASYNC110 - a hundred events would be one each
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Send until nobody takes connections any more."""
        async with asyncio.TaskGroup() as group:
            while not self._closed:
                group.create_task(self._deliver(f"evt_{next(self._numbers)}"))
                await asyncio.sleep(0.002)  # an arrival rate, not a wait for anything
        for _, writer in self._idle:
            writer.close()

    async def _deliver(self, webhook_id: str) -> None:
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        except ConnectionError:
            self._closed = True
            return
        try:
            await self._exchange(webhook_id, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def _exchange(self, webhook_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request(webhook_id))
        if not writer.transport.get_write_buffer_size() and not writer.is_closing():
            self.sent.append(webhook_id)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readuntil(b"}")
        self.statuses[webhook_id] = int(head.split()[1])
        if len(self.statuses) >= 300:
            self.flowing.set()
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))

    def _request(self, webhook_id: str) -> bytes:
        body = a_body(id=webhook_id, data_prescription_id=f"rx-{len(self.sent) % 50}")
        headers = signed_headers(body, webhook_id=webhook_id) | {"content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /webhooks/{self._ingress.source} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + body


def first_occurrences(records: Sequence[ConsumedRecord], keys: Iterable[str]) -> dict[str, list[str]]:
    """Key to the ids in its partition, in order, each where it stands first."""
    found: dict[str, dict[str, None]] = {key: {} for key in keys}
    for record in records:
        key = (record.key or b"").decode()
        if key in found:
            found[key].setdefault(header(record, "ce_id"))
    return {key: list(ids) for key, ids in found.items()}
