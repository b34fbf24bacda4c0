"""Settle the records of this member's partitions: records offered by the subscriber are applied, skipped or parked.

The path of a record:

1. `Processor.offer` takes it into the window of its partition, unless it was settled before.
2. With `Lanes`, a record whose header shows that it is not handled is settled at once; any other goes to the queue of
  its key (`key_queues`). With `Batches` it waits in the backlog for the next batch (`batches`); records of failed
  batches also go to the queues of their keys.
3. It is decoded (`decoding`). `Settling.settle` runs the handler, writes effects and progress, and settles the record
   in the window. Then the subscriber commits the window's `next_offset`.
4. If the handler fails, `Settling.on_failure` decides on a retry or on parking.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from bridge.avro.event_decoder import EventDecoder
from bridge.errors import TransientError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.runtime.backoff import Spread
from bridge.runtime.tracing import Tracing
from consumers.api import Batches, Consumer, Lanes
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.batches import BatchDriver
from consumers.runtime.circuit import Circuit
from consumers.runtime.decoding import Learner, RecordDecoder
from consumers.runtime.key_queues import KeyQueues
from consumers.runtime.ledger import Ledger
from consumers.runtime.metrics import ConsumerMetrics, Tally
from consumers.runtime.outbox import Outbox, OutboxProducer
from consumers.runtime.park_limit import ParkCounter, ParkLimit
from consumers.runtime.parking import ParkingFullError
from consumers.runtime.partition import Partition, Partitions
from consumers.runtime.settling import STOPS, Settling
from consumers.runtime.start_positions import Adoption
from consumers.runtime.tasks import Tasks

# Seconds between two queries for requested releases.
RELEASE_POLL_S = 1.0
# With batches, this many keys are handled one by one at a time; with three batches in progress they fit a pool of 8.
RETRY_LANES = 4
# Seconds between writes of progress over skipped records; losing it only repeats the skip.
PROGRESS_S = 1.0
# Seconds to write progress over skipped records at a drain; a row takes milliseconds.
LAST_PROGRESS_S = 1.0
# Seconds for cancelled tasks to release their connections at the end.
END_S = 10.0
OBSERVE_S = 1.0
# Seconds between two counts of parked records, each a query; alerts on it use minutes.
PARKED_EVERY = 15


class Processor:
    """Settles records offered by a member: a partition is adopted, started, offered records, and finally forgotten."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        database: Database,
        ledger: Ledger,
        decoder: EventDecoder,
        metrics: ConsumerMetrics,
        resource: Any = None,
        producer: OutboxProducer | None = None,
        park_counter: ParkCounter | None = None,
        learner: Learner | None = None,
        tracing: Tracing | None = None,
        spread: Spread = random.uniform,
        release_poll_s: float = RELEASE_POLL_S,
    ) -> None:
        """Build the parts.

        `producer` writes records published by handlers; without it they stay in the outbox. `spread` randomises delays.
        Requests of operators are queried every `release_poll_s`.
        """
        self._consumer = consumer
        self._database = database
        self._metrics = metrics
        self._release_poll_s = release_poll_s
        self._tasks = Tasks()
        group = consumer.group
        self._tally = Tally(metrics, group=group, topics=consumer.topics, tracing=tracing)
        self._partitions = Partitions(
            ledger, group=group, consumer=consumer.name, tally=self._tally, mode=consumer.mode
        )
        self._circuit = Circuit(
            partial(_ping, consumer, ledger, resource),
            waiters=self._partitions.waiters,
            metrics=metrics,
            group=group,
            spread=spread,
        )
        self._park_limit = ParkLimit(
            park_counter or ParkCounter(),
            self._partitions,
            database=database,
            group=group,
            metrics=metrics,
            poll_s=release_poll_s,
        )
        self._settling = Settling(
            consumer=consumer,
            database=database,
            ledger=ledger,
            record_decoder=RecordDecoder(consumer, decoder),
            circuit=self._circuit,
            tally=self._tally,
            partitions=self._partitions,
            park_limit=self._park_limit,
            spread=spread,
            resource=resource,
            tracing=tracing,
        )
        self._key_queues = KeyQueues(
            self._settling,
            learner=learner or Learner(decoder),
            lanes=consumer.mode.count if isinstance(consumer.mode, Lanes) else RETRY_LANES,
            tasks=self._tasks,
        )
        self._batches: BatchDriver | None = None
        if isinstance(consumer.mode, Batches):
            self._batches = BatchDriver(self._settling, key_queues=self._key_queues, mode=consumer.mode)
        self._outbox: Outbox | None = None
        if producer is not None:
            self._outbox = Outbox(
                database=database, producer=producer, group=group, metrics=metrics, published=ledger.published
            )

    async def adopt(self, tp: TopicPartition) -> Adoption:
        """Claim a partition; work on an earlier claim of it is void."""
        await self._park_limit.look()
        partition = await self._partitions.adopt(tp)
        # A release goes first: if the parking limit is reached, one more record would stop the partition again.
        partition.releases.update(key for _, key in await self._settling.requested([partition]))
        return Adoption(partition.claim.next_offset, partition.claim.last_event_id)

    def start(self, tp: TopicPartition, offset: int) -> None:
        """Expect records from `offset` on."""
        partition = self._partitions[tp]
        partition.open(offset)
        if self._park_limit.stops(partition):
            return
        self._key_queues.release_due(partition)
        if self._batches is not None:
            partition.driver = self._tasks.start(self._drive(partition, self._batches))

    def offer(self, tp: TopicPartition, records: Sequence[ConsumedRecord]) -> None:
        """Take records; those settled by an earlier owner, and those not handled, are settled at once."""
        partition = self._partitions.find(tp)
        if partition is None or not partition.may_start:
            return
        record_decoder, skips = self._settling.record_decoder, []
        now, stale = asyncio.get_running_loop().time(), 0
        for record in records:
            if not partition.take(record, now=now):
                stale += 1
            elif self._batches is not None:
                partition.backlog.append(record)
            elif (skip := record_decoder.skips(record)) is not None:
                partition.window.settle((record.offset,))
                skips.append(skip)
            else:
                self._key_queues.put(partition, record)
        if stale:
            self._tally.count(tp.topic, "stale", stale)
        if skips:
            self._tally.passed_over(tp.topic, skips)
            partition.note_progress()
        partition.wake.set()

    def room(self, tp: TopicPartition) -> bool:
        """Whether more may be offered now."""
        return self._partitions.room(tp)

    def halted(self, tp: TopicPartition) -> bool:
        """Whether a partition is stopped until an operator acts."""
        partition = self._partitions.find(tp)
        return partition is not None and bool(partition.stopped)

    def standing(self) -> str:
        """Return `ok`, or why records of some partition wait until an operator acts."""
        return self._park_limit.standing()

    def waiting(self) -> str:
        """Return `ok`, or `degraded` while a partition has made no progress for long."""
        now = asyncio.get_running_loop().time()
        waits = self._circuit.closed and any(partition.waits(now) for partition in self._partitions.opened())
        return "degraded" if waits else "ok"

    def fenced(self, tp: TopicPartition) -> bool:
        """Whether the partition must be forgotten and adopted again: claimed by another, or resumed after a stop."""
        return self._partitions.is_fenced(tp)

    def next_offset(self, tp: TopicPartition) -> int | None:
        """Return the offset below which all records are settled."""
        return self._partitions.next_offset(tp)

    async def drain(self, tps: Collection[TopicPartition], *, timeout_s: float) -> None:
        """Start no new record of these; return when those in progress are settled, or after `timeout_s`."""
        drained = await self._partitions.drain(tps, timeout_s=timeout_s)
        with contextlib.suppress(TimeoutError):  # the next owner then skips some records again
            async with asyncio.timeout(LAST_PROGRESS_S):
                await self._settling.write_progress(drained)

    def forget(self, tps: Collection[TopicPartition]) -> None:
        """Drop the state of these partitions."""
        self._partitions.forget(tps)

    async def run(self, stop: asyncio.Event) -> None:
        """Settle offered records; after `stop`, until every partition is forgotten. Raises if a task fails."""
        self._key_queues.begin()
        self._tasks.start(self._circuit.work())
        self._tasks.start(self._park_limit.work())
        if self._outbox is not None:
            self._tasks.start(self._outbox.work(self._partitions))
        self._tasks.start(self._write_progress())
        self._tasks.start(self._find_releases())
        self._tasks.start(self._observe())
        failed = asyncio.create_task(self._tasks.failed())
        ending = asyncio.create_task(self._partitions.forgotten(stop))
        try:
            await asyncio.wait((failed, ending), return_when=asyncio.FIRST_COMPLETED)
            self._tasks.check()
        finally:
            failed.cancel()
            ending.cancel()
            self._partitions.close()
            await self._tasks.end(END_S)

    async def _drive(self, partition: Partition, batches: BatchDriver) -> None:
        try:
            await batches.drive(partition)
        except STOPS as exc:
            self._settling.stop(partition, exc)

    async def _write_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            await self._settling.write_progress(self._partitions.opened())

    async def _find_releases(self) -> None:
        while True:
            await asyncio.sleep(self._release_poll_s)
            with contextlib.suppress(TransientError):  # settling meets the same failure, and logs it
                for partition, key in await self._settling.by_hand(self._partitions.opened()):
                    self._key_queues.set_aside(partition, key)
                for partition, key in await self._settling.requested(self._partitions.opened()):
                    self._begin_release(partition, key)

    def _begin_release(self, partition: Partition, key: str) -> None:
        if partition.stopped:  # this key may be the one that fills the parking limit
            self._park_limit.renew(partition)
        elif self._batches is None:
            self._key_queues.release(partition, key)
        else:
            partition.releases.add(key)
            partition.wake.set()

    async def _observe(self) -> None:
        """Periodically report records in flight and parked records."""
        metrics = self._metrics
        for looks in itertools.count():
            if looks % PARKED_EVERY == 0:
                await self._count_parked()
            now = asyncio.get_running_loop().time()
            held = self._partitions.opened()
            full = sum(isinstance(partition.stopped, ParkingFullError) for partition in held)
            metrics.parking_full_partitions.set(full)
            windows = [partition.window for partition in held]
            metrics.inflight_records.set(sum(window.unsettled for window in windows))
            oldest_s = max((window.oldest_age_s(now) for window in windows), default=0.0)
            metrics.oldest_inflight_age.set(oldest_s)
            await asyncio.sleep(OBSERVE_S)

    async def _count_parked(self) -> None:
        try:
            counted = await parking.census(self._database, self._consumer.group)
        except TransientError:
            return  # keep the last figures; settling logs that the database is away
        metrics = self._metrics
        for gauge, value in zip(
            (metrics.parked_keys, metrics.parked_events, metrics.parked_oldest_age), counted, strict=True
        ):
            gauge.set(value)


async def _ping(consumer: Consumer, ledger: Ledger, resource: Any) -> None:
    """Ping the database and the sink of handlers."""
    await ledger.ping()
    if consumer.ping is not None:
        await consumer.ping(resource)
