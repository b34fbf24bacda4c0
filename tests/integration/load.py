"""Senders that keep at it, one for each key, and remember what they were promised."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from uuid import uuid4

import aiohttp

from bridge.kafka.client import ConsumedRecord
from tests.builders import a_body
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
            if status == 200:
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


def first_occurrences(records: Sequence[ConsumedRecord], keys: Iterable[str]) -> dict[str, list[str]]:
    """Key to the ids in its partition, in order, each where it stands first."""
    found: dict[str, dict[str, None]] = {key: {} for key in keys}
    for record in records:
        key = (record.key or b"").decode()
        if key in found:
            found[key].setdefault(header(record, "ce_id"))
    return {key: list(ids) for key, ids in found.items()}
