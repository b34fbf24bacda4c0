"""Apply records of a partition in batches, each in one transaction.

A batch without failures takes one transaction. If the handler raises, the transaction is rolled back, and the records
are handled one by one in their key queues. There the failing one is retried or parked; the others are applied, each in
its own transaction. Batches of other keys continue meanwhile. A record that cannot be decoded, or whose id is known
with another body, goes to its key queue at once, with the other records of its key; the rest stays a batch.
"""

import asyncio
from collections.abc import Iterable

from bridge.errors import TransientError
from bridge.kafka.consumed_record import ConsumedRecord
from consumers.api import Batches
from consumers.runtime.key_queues import KeyQueues
from consumers.runtime.parking import key_text
from consumers.runtime.partition import Partition
from consumers.runtime.retry_policy import SYSTEMIC_MAX_S, Failure, Tries, delay_s
from consumers.runtime.settling import STOPS, ConflictError, LiveError, Settling, Work

# Batches in progress: while one waits for the database, another is decoded. A thousand events take some 14 MiB.
BATCHES_MAX = 3
# Seconds between two checks whether the window is full.
ROOM_S = 1.0


class BatchDriver:
    """Settles the records of partitions in batches."""

    def __init__(self, settling: Settling, *, key_queues: KeyQueues, mode: Batches) -> None:
        self._settling = settling
        self._key_queues = key_queues
        self._mode = mode
        self._slots = asyncio.Semaphore(BATCHES_MAX)
        self._filling: set[Partition] = set()

    async def drive(self, partition: Partition) -> None:
        """Settle the records of a partition in batches until it is drained or stopped."""
        attempt = 0
        while partition.may_start:
            self._key_queues.release_due(partition)
            if not partition.backlog:
                await partition.woken()
                continue
            circuit = self._settling.circuit
            if not circuit.admits(partition):
                circuit.hold(partition)
                await partition.woken()
                continue
            try:
                await self._fill(partition)
                async with self._slots:
                    self._wake_fullest()
                    settled = await self._turn(partition, attempt + 1)
            finally:
                circuit.ended(partition)
            self._wake_fullest()
            attempt = 0 if settled else attempt + 1
            if attempt:  # after a deadlock, or while the database is away
                await asyncio.sleep(delay_s(attempt, spread=self._settling.spread, max_s=SYSTEMIC_MAX_S))

    async def _fill(self, partition: Partition) -> None:
        """Wait briefly for a batch to be full, unless the window is full."""
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
                if self._must_make_room(partition):
                    return
                try:
                    # Records of other partitions do not wake this task.
                    async with asyncio.timeout(min(left, ROOM_S)):
                        await partition.woken()
                except TimeoutError:
                    continue
        finally:
            self._filling.discard(partition)

    def _must_make_room(self, partition: Partition) -> bool:
        """Return whether a partition must settle records before more are read.

        If all partitions together fill the window, the one with the largest batch settles it, and the others wait.
        Otherwise each batch would have only a few dozen records.
        """
        partitions = self._settling.partitions
        if not partitions.full:
            return not partitions.room(partition.tp)
        return partition is self._fullest() and not self._slots.locked()

    def _fullest(self) -> Partition | None:
        return max(self._filling, key=lambda each: len(each.backlog), default=None)

    def _wake_fullest(self) -> None:
        fullest = self._fullest()
        if fullest is not None:
            fullest.wake.set()

    async def _turn(self, partition: Partition, attempt: int) -> bool:
        """Take a batch from the backlog and settle it; False if it must be retried after a delay."""
        if not partition.may_start:
            return True
        batch = self._form(partition)
        if not len(batch):
            return True
        with partition.in_progress():
            return await self._settle(partition, batch, attempt)

    def _form(self, partition: Partition) -> Work:
        """Take a batch from the backlog; records of keys that are handled one by one go to their queues."""
        batch, parked = Work(), partition.claim.parked
        backlog, decode, most = partition.backlog, self._settling.record_decoder.decode, self._mode.records
        while backlog and len(batch) < most:
            record = backlog.popleft()
            if partition.queues or parked:
                key = key_text(record)
                if key in partition.queues:
                    self._key_queues.put(partition, record)
                    continue
                if key in parked:
                    batch.behind.append(record)
                    continue
            ready = decode(record)
            if isinstance(ready, Failure):
                self._go_on_alone(partition, [*batch.take_out({key_text(record)}), record])
            else:
                batch.add(record, ready)
        return batch

    async def _settle(self, partition: Partition, batch: Work, attempt: int) -> bool:
        settling, tries = self._settling, Tries(1)
        try:
            await settling.settle(partition, batch, tries)
        except STOPS:
            raise
        except LiveError:
            self._put_back(partition, batch)
        except ConflictError as exc:
            self._go_on_alone(partition, batch.take_out({key_text(record) for record in exc.records}))
            self._put_back(partition, batch)
        except TransientError as exc:
            if exc.systemic:
                settling.circuit.failed(code=exc.code)
                topic, number, offset, *_ = batch.records[0]
                at = {"topic": topic, "partition": number, "offset": offset}
                settling.tally.sink_failed(exc.code, first=attempt == 1, **at)
            elif not tries.refused:
                settling.tally.retried_batch(partition.tp.topic, len(batch), code=exc.code)
            again = exc.systemic or not tries.refused
            if again and (
                attempt < settling.consumer.attempts or (exc.systemic and not await settling.circuit.ping_sink())
            ):
                self._put_back(partition, batch)
                return False
            # If a single record caused the failure, handling one by one finds it.
            self._go_on_alone(partition, batch.records)
        except Exception:  # noqa: BLE001 - repeated and classified in the key queue of the failing record
            self._go_on_alone(partition, batch.records)
        return True

    def _put_back(self, partition: Partition, batch: Work) -> None:
        if not (partition.gone or partition.stopped):  # otherwise they are read again
            partition.backlog.extendleft(reversed(batch.records))

    def _go_on_alone(self, partition: Partition, records: Iterable[ConsumedRecord]) -> None:
        if not (partition.gone or partition.stopped):
            for record in records:
                self._key_queues.put(partition, record)
