"""Fakes of the seams; each is held to the truth by a suite in tests/contract that also runs on the real thing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from bridge.errors import NotDurableError
from bridge.kafka.lanes import RecordRefusedError
from bridge.kafka.record import Record


class FakeProducer:
    """Kafka in memory: topics with partitions, batches with a size, and the ways it can fail.

    Attributes:
        log: What each (topic, partition) holds, in order.
        batches: How many records each write put down, in order.
        topics: Topic to partition count; a topic that is not here does not exist.
        batch_max: Records that one batch holds.
        too_large: Whether a record is more than the broker takes.
        failure: Code that every write fails with, or None.
        closed: True after `close`.
    """

    def __init__(self, topics: dict[str, int], *, batch_max: int = 100) -> None:
        """Hold `topics`; everything works until told otherwise."""
        self.topics = topics
        self.batch_max = batch_max
        self.log: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        self.batches: list[int] = []
        self.too_large: Callable[[Record], bool] = lambda _: False
        self.failure: str | None = None
        self.connected = True
        self.closed = False
        self._writing = asyncio.Semaphore(0)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._in_flight: set[asyncio.Task[Literal[True]]] = set()

    @property
    def ready(self) -> bool:
        """True while connected."""
        return self.connected and not self.closed

    @property
    def records(self) -> list[Record]:
        """Everything written, partition by partition."""
        return [record for records in self.log.values() for record in records]

    def hold(self) -> None:
        """Leave every write without an answer until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """Answer writes again."""
        self._flowing.set()

    async def wait_for_write(self) -> None:
        """Return when one more write has been handed over."""
        await self._writing.acquire()

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Append, unless told to fail."""
        if not self.ready:
            raise NotDurableError("kafka_unavailable")
        if not 0 <= partition < self.topics.get(topic, 0):
            raise NotDurableError("topic_missing")
        batch = records[: self.batch_max]
        self._writing.release()
        await self._answer()
        if self.failure is not None:
            raise NotDurableError(self.failure)
        if any(map(self.too_large, batch)):
            raise RecordRefusedError("record_too_large")
        self.log[topic, partition].extend(batch)
        self.batches.append(len(batch))
        return len(batch)

    async def close(self, timeout_s: float) -> None:
        """Wait for the writes in flight, then leave those without an answer unknown."""
        self.closed = True
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=timeout_s)
        for waiting in self._in_flight:
            waiting.cancel()

    async def _answer(self) -> None:
        waiting = asyncio.ensure_future(self._flowing.wait())
        self._in_flight.add(waiting)
        try:
            await asyncio.wait({waiting})
        finally:
            self._in_flight.discard(waiting)
        if waiting.cancelled():
            raise NotDurableError("outcome_unknown")
