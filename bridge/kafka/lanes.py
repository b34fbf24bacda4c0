"""Write records partition by partition: in the order given, batched by what waits, each within its deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from bridge.errors import NotDurableError
from bridge.kafka.record import Record

log = structlog.get_logger()

# Late by at most this much, deadlines cost one timer for all deliveries instead of one for each.
SWEEP_S = 0.1
# What a batch may take from a lane; a producer's batch is full long before with records of 1 KB.
BATCH_MAX = 500
# Headers, key and our own objects around the value of a record.
OVERHEAD_BYTES = 1024
# Kept from the time for a stop when records do not leave, so that the producer can end in order.
PRODUCER_CLOSE_S = 2.0


class RecordRefusedError(NotDurableError):
    """Kafka refused a batch for what one of its records is; nothing of the batch was written."""


class Producer(Protocol):
    """Writes to Kafka; every call ends within a bound of the producer's own."""

    @property
    def ready(self) -> bool:
        """True when a write may succeed now."""

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write as many `records`, from the first, as one batch holds; return how many all replicas have.

        Raises:
            RecordRefusedError: One of the records is at fault.
            NotDurableError: Not written, or not known to be.
        """

    async def close(self, timeout_s: float) -> None:
        """Finish what is in flight within `timeout_s`, then end every connection."""


class _Ticket:
    """What one delivery waits for: all of its records."""

    __slots__ = ("expires_at", "future", "left")

    def __init__(self, future: asyncio.Future[None], left: int, expires_at: float) -> None:
        self.future = future
        self.left = left
        self.expires_at = expires_at


_Entry = tuple[Record, _Ticket]


class _Lane:
    """The records of one partition, oldest first; one batch of them is in flight at a time."""

    __slots__ = ("partition", "queue", "task", "topic", "writing_since")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.queue: deque[_Entry] = deque()
        self.task: asyncio.Task[None] | None = None
        self.writing_since: float | None = None


class Lanes:
    """The way from records to the producer; what Kafka does not take in time is given up, never reordered."""

    def __init__(self, *, producer: Producer, deadline_s: float, queue_max: int, queue_max_bytes: int) -> None:
        """Hold at most `queue_max` records of `queue_max_bytes`, waiting or in flight."""
        self._producer = producer
        self._deadline_s = deadline_s
        self._queue_max = queue_max
        self._queue_max_bytes = queue_max_bytes
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._tickets: deque[_Ticket] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._records = 0
        self._bytes = 0
        self._closing = False

    def check_open(self) -> None:
        """Raise `NotDurableError` when nothing can be taken now."""
        if self._closing:
            raise NotDurableError("shutting_down")
        if not self._producer.ready:
            raise NotDurableError("kafka_unavailable")

    def enqueue(self, records: Sequence[Record]) -> asyncio.Future[None]:
        """Take the records of one delivery, all or none; the future ends when every one is acknowledged.

        Raises:
            NotDurableError: At once, or from the future; a record already handed to Kafka may still appear.
        """
        if not records:
            raise ValueError(records)  # an answer 2xx with nothing durable behind it would be a lost delivery
        self.check_open()
        loop = asyncio.get_running_loop()
        now = loop.time()
        lanes = [self._lane(record.topic, record.partition) for record in records]
        for lane in lanes:
            if lane.writing_since is not None and now - lane.writing_since > self._deadline_s:
                raise NotDurableError("kafka_unavailable")
        size = sum(map(_size, records))
        if self._records + len(records) > self._queue_max or self._bytes + size > self._queue_max_bytes:
            raise NotDurableError("queue_full")
        self._records += len(records)
        self._bytes += size
        ticket = _Ticket(loop.create_future(), len(records), now + self._deadline_s)
        self._tickets.append(ticket)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        for lane, record in zip(lanes, records, strict=True):
            lane.queue.append((record, ticket))
            if lane.task is None:
                lane.task = loop.create_task(self._drive(lane))
        return ticket.future

    async def close(self, timeout_s: float) -> None:
        """Take nothing more, finish what was taken, then close the producer; all of it within `timeout_s`."""
        self._closing = True
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        waiting = [ticket.future for ticket in self._tickets if not ticket.future.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=max(0.0, timeout_s - PRODUCER_CLOSE_S))
        for future in waiting:
            if not future.done():
                future.set_exception(NotDurableError("shutting_down"))
        await self._producer.close(max(0.0, ends_at - loop.time()))
        # A closed producer refuses at once, so these end by themselves.
        await asyncio.gather(*[lane.task for lane in self._lanes.values() if lane.task is not None])
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _lane(self, topic: str, partition: int) -> _Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = _Lane(topic, partition)
        return lane

    async def _drive(self, lane: _Lane) -> None:
        """Write a lane's records until none are left; what arrives meanwhile makes the next batch."""
        try:
            while batch := self._take(lane):
                await self._write(lane, batch)
        finally:
            lane.task = None

    def _take(self, lane: _Lane) -> list[_Entry]:
        """Take the next records that somebody still waits for."""
        batch: list[_Entry] = []
        while lane.queue and len(batch) < BATCH_MAX:
            entry = lane.queue.popleft()
            if entry[1].future.done():
                self._forget(entry)
            else:
                batch.append(entry)
        return batch

    async def _write(self, lane: _Lane, batch: list[_Entry]) -> None:
        lane.writing_since = asyncio.get_running_loop().time()
        try:
            written = await self._producer.write(lane.topic, lane.partition, [record for record, _ in batch])
        except RecordRefusedError as exc:
            await self._write_singly(lane, batch, exc.code)
        except NotDurableError as exc:
            self._fail(batch, exc.code)
        except Exception as exc:  # noqa: BLE001 - a bug in a producer must not leave a partition without a writer
            log.error("worker.write_failed", topic=lane.topic, partition=lane.partition, code=type(exc).__name__)
            self._fail(batch, "unexpected")
        else:
            self._settle(batch[:written])
            lane.queue.extendleft(reversed(batch[written:]))
        finally:
            lane.writing_since = None

    async def _write_singly(self, lane: _Lane, batch: list[_Entry], code: str) -> None:
        """Find the records at fault in a refused batch; the others are written in their order."""
        if len(batch) == 1:
            self._fail(batch, code)
            return
        for entry in batch:
            if entry[1].future.done():
                self._forget(entry)
            else:
                await self._write(lane, [entry])

    def _settle(self, entries: list[_Entry]) -> None:
        for entry in entries:
            self._forget(entry)
            ticket = entry[1]
            ticket.left -= 1
            if not ticket.left and not ticket.future.done():
                ticket.future.set_result(None)

    def _fail(self, entries: list[_Entry], code: str) -> None:
        for entry in entries:
            self._forget(entry)
            future = entry[1].future
            if not future.done():
                future.set_exception(NotDurableError(code))

    def _forget(self, entry: _Entry) -> None:
        self._records -= 1
        self._bytes -= _size(entry[0])

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell those whose time is up; all have the same time, so the oldest is always the first."""
        now = loop.time()
        tickets = self._tickets
        while tickets and (tickets[0].future.done() or tickets[0].expires_at <= now):
            future = tickets.popleft().future
            if not future.done():
                future.set_exception(NotDurableError("deadline"))
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop) if tickets else None


def _size(record: Record) -> int:
    return OVERHEAD_BYTES + len(record.value or b"")
