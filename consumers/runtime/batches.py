"""Apply the records of a partition many at a time, in one transaction.

A batch in which nothing goes wrong costs one transaction. When the handler refuses it, the transaction is rolled back
and every record goes on alone, in the queue of its key: there the one at fault is found, retried or parked, and the
others are applied, each in a transaction of its own. Batches of other keys go on meanwhile. A record that is known to
be at fault, since it cannot be decoded or its id came with another body, goes to its key queue at once, with those of
its key, and the others stay a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.errors import TransientError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.failpoints import BATCH_BEFORE_OFFSET, hit
from consumers.api import Batches
from consumers.runtime import parking
from consumers.runtime.failure import ATTEMPTS_MAX, SYSTEMIC_MAX_S, Failure, delay_s
from consumers.runtime.key_queues import KeyQueues
from consumers.runtime.ledger import FencedError, Settlement
from consumers.runtime.parking import key_text
from consumers.runtime.partition import Partition
from consumers.runtime.settling import Settling
from consumers.runtime.sorting import Skip, Sorted

# Batches in hand at a time: while one waits for the database, another is decoded. A thousand events take some 14 MiB.
BATCHES_MAX = 3
# Between two looks whether the window is full.
ROOM_S = 1.0


@dataclass(slots=True)
class Batch:
    """Records of one partition.

    Attributes:
        items: All of them but those that are appended, in order.
        behind: Records of parked keys, in order.
    """

    items: list[tuple[ConsumedRecord, Sorted | Skip]] = field(default_factory=list)
    behind: list[ConsumedRecord] = field(default_factory=list)

    def __len__(self) -> int:
        """Count records."""
        return len(self.items) + len(self.behind)

    @property
    def records(self) -> list[ConsumedRecord]:
        """All records, in order."""
        return sorted([*(record for record, _ in self.items), *self.behind], key=lambda record: record.offset)


class _NotAppendedError(Exception):
    """A key is parked no more: the batch is formed anew."""


class _RefusedError(Exception):
    """One of the records is at fault."""


class _ConflictError(Exception):
    """The ids of some records came with another body."""

    def __init__(self, records: Sequence[ConsumedRecord]) -> None:
        super().__init__()
        self.records = records


class BatchDriver:
    """Drives partitions in batches."""

    def __init__(self, settling: Settling, *, key_queues: KeyQueues, mode: Batches) -> None:
        self._settling = settling
        self._key_queues = key_queues
        self._mode = mode
        self._slots = asyncio.Semaphore(BATCHES_MAX)
        self._filling: set[Partition] = set()

    async def drive(self, partition: Partition) -> None:
        """Settle what is offered for as long as records may be handled.

        Raises:
            FencedError: The partition is not ours.
            UnknownTypeError: The consumer fails for a type that this release does not know.
        """
        attempt = 0
        while partition.may_start:
            self._key_queues.release_due(partition)
            if not (partition.backlog and self._settling.circuit.admits()):
                await partition.woken()
                continue
            await self._fill(partition)
            async with self._slots:
                self._wake_fullest()
                settled = await self._turn(partition, attempt + 1)
            self._wake_fullest()
            attempt = 0 if settled else attempt + 1
            if attempt:  # it met a deadlock, or a database that is away
                await asyncio.sleep(delay_s(attempt, spread=self._settling.spread, max_s=SYSTEMIC_MAX_S))

    async def _fill(self, partition: Partition) -> None:
        """Wait a little for a batch to be full, but not once no more is taken in: what fills a window is in it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._mode.wait_s
        self._filling.add(partition)
        try:
            while len(partition.backlog) < self._mode.records and partition.may_start:
                left = until - loop.time()
                if left <= 0:
                    return
                if self._settling.partitions.full:
                    self._wake_fullest()
                if self._waits_in_vain(partition):
                    return
                try:
                    # What another partition takes in wakes nobody here.
                    async with asyncio.timeout(min(left, ROOM_S)):
                        await partition.woken()
                except TimeoutError:
                    continue
        finally:
            self._filling.discard(partition)

    def _waits_in_vain(self, partition: Partition) -> bool:
        """Whether no more of a partition is taken in before it makes room.

        Where all partitions together fill the window, the one with the largest batch makes room, and the others wait
        on: if each went with what it has, batches would hold a few dozen records.
        """
        partitions = self._settling.partitions
        if not partitions.full:
            return not partitions.room(partition.place)
        return partition is self._fullest() and not self._slots.locked()

    def _fullest(self) -> Partition | None:
        return max(self._filling, key=lambda each: len(each.backlog), default=None)

    def _wake_fullest(self) -> None:
        fullest = self._fullest()
        if fullest is not None:
            fullest.wake.set()

    async def _turn(self, partition: Partition, attempt: int) -> bool:
        """Take a batch out of the backlog and settle it; False when it is to be tried again after a while."""
        if not partition.may_start:
            return True
        batch = self._form(partition)
        if not len(batch):
            return True
        partition.begin()
        try:
            return await self._settle(partition, batch, attempt)
        finally:
            partition.end()

    def _form(self, partition: Partition) -> Batch:
        """Take a batch out of the backlog; records of keys that are handled one by one go to their queues."""
        batch = Batch()
        backlog, sort, most = partition.backlog, self._settling.sorter.sort, self._mode.records
        while backlog and len(batch) < most:
            record = backlog.popleft()
            if partition.queues or partition.parked:
                key = key_text(record)
                if key in partition.queues:
                    self._key_queues.put(partition, record)
                    continue
                if key in partition.parked:
                    batch.behind.append(record)
                    continue
            ready = sort(record)
            if isinstance(ready, Failure):
                self._take_out(partition, batch, record)
            else:
                batch.items.append((record, ready))
        return batch

    def _take_out(self, partition: Partition, batch: Batch, record: ConsumedRecord) -> None:
        """Give a record that cannot be decoded to its key queue, behind what the batch holds of its key."""
        key = key_text(record)
        before = [item for item in batch.items if key_text(item[0]) == key]
        if before:
            batch.items = [item for item in batch.items if key_text(item[0]) != key]
        for each, _ in before:
            self._key_queues.put(partition, each)
        self._key_queues.put(partition, record)

    async def _settle(self, partition: Partition, batch: Batch, attempt: int) -> bool:
        try:
            await self._apply(partition, batch)
        except _NotAppendedError:
            self._put_back(partition, batch)
        except _ConflictError as exc:
            self._set_apart(partition, batch, exc.records)
        except FencedError:
            raise
        except TransientError as exc:
            if exc.systemic:
                self._settling.circuit.failed(code=exc.code)
            else:
                self._settling.tally.retried_batch(partition.place.topic, len(batch), code=exc.code)
            if attempt < ATTEMPTS_MAX or (exc.systemic and not await self._settling.circuit.there()):
                self._put_back(partition, batch)
                return False
            # Should it fail for one record alone, that is found out one by one.
            self._go_on_alone(partition, batch)
        except Exception:  # noqa: BLE001 - found again in the key queue of the record at fault, and judged there
            self._go_on_alone(partition, batch)
        return True

    def _put_back(self, partition: Partition, batch: Batch) -> None:
        if not (partition.gone or partition.stopped):  # else they are read again
            partition.backlog.extendleft(reversed(batch.records))

    def _set_apart(self, partition: Partition, batch: Batch, records: Sequence[ConsumedRecord]) -> None:
        """Have the keys of some records handled one by one, and all others as a batch again."""
        keys = {key_text(record) for record in records}
        if not (partition.gone or partition.stopped):
            for record, _ in batch.items:
                if key_text(record) in keys:
                    self._key_queues.put(partition, record)
        batch.items = [item for item in batch.items if key_text(item[0]) not in keys]
        self._put_back(partition, batch)

    def _go_on_alone(self, partition: Partition, batch: Batch) -> None:
        if not (partition.gone or partition.stopped):
            for record in batch.records:
                self._key_queues.put(partition, record)

    async def _apply(self, partition: Partition, batch: Batch) -> None:
        """Settle a batch, or nothing of it.

        Raises:
            _NotAppendedError: A key is parked no more.
            _ConflictError: An id came with another body.
            _RefusedError: The handler said no.
            TransientError: The database is away, or could not do it this time.
            FencedError: The partition is not ours.
            ParkingFullError: Too many records of a key are parked.
        """
        settling, topic = self._settling, partition.place.topic
        events = [ready for _, ready in batch.items if isinstance(ready, Sorted)]
        offsets = frozenset([*(item[0].offset for item in batch.items), *(each.offset for each in batch.behind)])
        if not events and not batch.behind:
            partition.settle(offsets)
            settling.tally.passed_over(topic, (ready for _, ready in batch.items))
            return
        async with settling.transaction(partition, offsets, effects=True) as settlement:
            await settlement.fence(min(offsets))
            for record in batch.behind:
                if not await parking.append(settlement, record):
                    partition.parked.discard(key_text(record))
                    raise _NotAppendedError
            fresh = await self._fresh(settlement, events)
            if fresh:
                await self._call(partition, settlement, fresh)
            hit(BATCH_BEFORE_OFFSET)
        settling.circuit.passed()
        settling.park_limit.counter.note(other=len(events))
        settling.tally.applied(fresh)
        if len(events) < len(batch.items):
            settling.tally.passed_over(topic, (ready for _, ready in batch.items))
        if batch.behind:
            settling.tally.appended(topic, len(batch.behind))
        if len(fresh) < len(events):
            settling.tally.count(topic, "duplicate", len(events) - len(fresh))

    async def _fresh(self, settlement: Settlement, events: list[Sorted]) -> list[Sorted]:
        if not events:
            return []
        states = await settlement.admit([event.inbox for event in events])
        conflicts = [event.record for event, state in zip(events, states, strict=True) if state == "conflict"]
        if conflicts:
            raise _ConflictError(conflicts)
        return [event for event, state in zip(events, states, strict=True) if state == "fresh"]

    async def _call(self, partition: Partition, settlement: Settlement, events: Sequence[Sorted]) -> None:
        connection = settlement.connection
        placed = [self._settling.placed(event, attempt=1, connection=connection) for event in events]
        try:
            await self._settling.call(partition, placed, settlement)
        except TransientError as exc:  # of the handler, not of the transaction
            if exc.systemic:
                raise  # its sink is away, for every batch
            raise _RefusedError from exc
