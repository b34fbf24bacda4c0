"""Apply the records of a partition many at a time, in one transaction.

A batch in which nothing goes wrong costs one transaction. When the handler refuses it, the transaction is rolled back
and every record goes on alone, in the queue of its key. There the one at fault is retried or parked; the others are
applied, each in a transaction of its own. Batches of other keys go on meanwhile. A record that cannot be decoded, or
whose id came with another body, goes to its key queue at once. So do the other records of its key; the rest stays a
batch.
"""

import asyncio
from collections.abc import Iterable

from bridge.errors import TransientError
from bridge.kafka.transport import ConsumedRecord
from consumers.api import Batches
from consumers.runtime.failure import SYSTEMIC_MAX_S, Failure, Tries, delay_s
from consumers.runtime.key_queues import KeyQueues
from consumers.runtime.parking import key_text
from consumers.runtime.partition import Partition
from consumers.runtime.settling import STOPS, ConflictError, LiveError, Settling, Work

# Batches in hand at a time: while one waits for the database, another is decoded. A thousand events take some 14 MiB.
BATCHES_MAX = 3
# Between two looks whether the window is full.
ROOM_S = 1.0


class BatchDriver:
    """Drives partitions in batches."""

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
            await circuit.admitted(partition)
            try:
                await self._fill(partition)
                async with self._slots:
                    self._wake_fullest()
                    settled = await self._turn(partition, attempt + 1)
            finally:
                circuit.ended(partition)
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
                if self._must_make_room(partition):
                    return
                try:
                    # Records of another partition wake nobody here.
                    async with asyncio.timeout(min(left, ROOM_S)):
                        await partition.woken()
                except TimeoutError:
                    continue
        finally:
            self._filling.discard(partition)

    def _must_make_room(self, partition: Partition) -> bool:
        """Whether no more of a partition is taken in before it makes room.

        Where all partitions together fill the window, the one with the largest batch makes room, and the others wait.
        If each went with what it has, batches would hold a few dozen records.
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
        with partition.in_hand():
            return await self._settle(partition, batch, attempt)

    def _form(self, partition: Partition) -> Work:
        """Take a batch out of the backlog; records of keys that are handled one by one go to their queues."""
        batch, parked = Work(), partition.claim.parked
        backlog, sort, most = partition.backlog, self._settling.sorter.sort, self._mode.records
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
            ready = sort(record)
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
                settling.tally.retried_batch(partition.place.topic, len(batch), code=exc.code)
            again = exc.systemic or not tries.refused
            if again and (
                attempt < settling.consumer.attempts or (exc.systemic and not await settling.circuit.there())
            ):
                self._put_back(partition, batch)
                return False
            # Should it fail for one record alone, that is found out one by one.
            self._go_on_alone(partition, batch.records)
        except Exception:  # noqa: BLE001 - found again in the key queue of the record at fault, and judged there
            self._go_on_alone(partition, batch.records)
        return True

    def _put_back(self, partition: Partition, batch: Work) -> None:
        if not (partition.gone or partition.stopped):  # else they are read again
            partition.backlog.extendleft(reversed(batch.records))

    def _go_on_alone(self, partition: Partition, records: Iterable[ConsumedRecord]) -> None:
        if not (partition.gone or partition.stopped):
            for record in records:
                self._key_queues.put(partition, record)
