"""Settle records: one by one, in batches or by release of parked ones, with handlers in the transaction or not.

`Settling.settle` takes a `Work`. In one transaction it admits the events to the inbox, runs the handler for new ones,
releases or appends parked records, and advances progress. Then the records are settled in the window. A handler that
does not work inside the transaction was called before (`call`), and the work has its published records.

`on_failure` applies `retry_policy` to a failed attempt, and `park` parks a record. Joint failures are handled by other
modules: a batch is retried or split (`batches`), a round is split (`rounds`). Methods that write raise `FencedError` if
another process has claimed the partition, and `TransientError` if the database is away or refuses this attempt.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bridge.errors import PermanentError, TransientError
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.runtime.backoff import Spread
from bridge.runtime.failpoints import hit
from bridge.runtime.logging import log
from bridge.runtime.tracing import Tracing
from consumers.api import Consumer, Outgoing
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.calls import call_handler
from consumers.runtime.circuit import Circuit
from consumers.runtime.decoding import Decoded, RecordDecoder, Skip
from consumers.runtime.ledger import FencedError, Ledger, Settlement
from consumers.runtime.metrics import Tally
from consumers.runtime.park_limit import ParkLimit, ParkLimitError
from consumers.runtime.parking import ParkingFullError, StoppedError, Why, WithdrawnError, key_text
from consumers.runtime.partition import KeyQueue, Partition, Partitions
from consumers.runtime.retry_policy import (
    ID_CONFLICT,
    SYSTEMIC_MAX_S,
    Park,
    Tries,
    Waits,
    at_fault,
    classify,
    delay_s,
    raised_at,
    retry_delay_s,
)

_Written = TypeVar("_Written")
STOPS = (FencedError, ParkLimitError, ParkingFullError)
"""Errors that end the settling of a partition; see `Settling.stop`."""


class LiveError(Exception):
    """A key is no longer parked: an operator dropped or released it."""


class ConflictError(PermanentError):
    """Ids of some records were used before with another body."""

    def __init__(self, records: Sequence[ConsumedRecord]) -> None:
        super().__init__(ID_CONFLICT)
        self.records = records


@dataclass(slots=True)
class Work:
    """Records of one partition that one transaction settles."""

    events: list[Decoded] = field(default_factory=list)  # for the handler, in order
    skipped: list[tuple[ConsumedRecord, Skip]] = field(default_factory=list)  # settled without calling the handler
    # Records of parked keys, in order; they are parked, too.
    behind: list[ConsumedRecord] = field(default_factory=list)
    # The parked record being released; `events` then has only its event.
    parked: ConsumedRecord | None = None
    # None if the handler runs inside the transaction; else maps the offset of each handled event to its published
    # records.
    handled: dict[int, Sequence[Outgoing]] | None = None

    def __len__(self) -> int:
        return len(self.events) + len(self.skipped) + len(self.behind)

    @property
    def _every(self) -> list[ConsumedRecord]:
        return [*(each.record for each in self.events), *(record for record, _ in self.skipped), *self.behind]

    @property
    def records(self) -> list[ConsumedRecord]:
        """All records, in order."""
        return sorted(self._every, key=lambda record: record.offset)

    @property
    def offsets(self) -> frozenset[int]:
        """Offsets to settle; none for a parked record, which was settled when it was parked."""
        return frozenset() if self.parked is not None else frozenset(record.offset for record in self._every)

    def add(self, record: ConsumedRecord, ready: Decoded | Skip) -> None:
        """Append a record whose key is not parked."""
        if isinstance(ready, Skip):
            self.skipped.append((record, ready))
        else:
            self.events.append(ready)

    def take_out(self, keys: Collection[str]) -> list[ConsumedRecord]:
        """Remove all records of some keys, in text form, and return them in order."""
        taken = [record for record in self.records if key_text(record) in keys]
        self.events = [each for each in self.events if key_text(each.record) not in keys]
        self.skipped = [each for each in self.skipped if key_text(each[0]) not in keys]
        self.behind = [each for each in self.behind if key_text(each) not in keys]
        return taken


@dataclass(frozen=True, slots=True)
class Settling:
    """Settles records."""

    consumer: Consumer
    database: Database
    ledger: Ledger
    record_decoder: RecordDecoder
    circuit: Circuit
    tally: Tally
    partitions: Partitions
    park_limit: ParkLimit
    spread: Spread = random.uniform  # randomises delays; replaced in tests
    resource: Any = None  # resource of `Consumer.around`
    tracing: Tracing | None = None

    async def call(self, events: Sequence[Decoded], tries: Tries, connection: Any = None) -> list[Outgoing]:
        """Run the handler; return the records it publishes."""
        tries.calling = True
        try:
            with self._span("handle", events):
                called = await call_handler(
                    self.consumer, events, attempt=tries.attempt, connection=connection, resource=self.resource
                )
        except TransientError:
            tries.refused = True
            raise
        tries.calling = False
        tries.asked = called.asked
        return called.outgoing

    async def settle(self, partition: Partition, work: Work, tries: Tries) -> None:
        """Settle all records of `work`, or none.

        Raises `LiveError` if a key is no longer parked, `WithdrawnError` if the release was withdrawn, `ConflictError`
        if an id is known with another body, `ParkingFullError` if too many records of a key are parked.
        """
        offsets = work.offsets
        if not (work.events or work.behind or work.parked):  # nothing has to be written now
            partition.window.settle(offsets)
            partition.note_progress()
            self.tally.passed_over(partition.tp.topic, (skip for _, skip in work.skipped))
            return
        inside = work.handled is None
        async with self.transaction(partition, offsets, events=work.events, effects=inside) as settlement:
            await self._hold(partition, work, settlement)
            states = await settlement.admit([event.inbox for event in work.events])
            fresh = [event for event, state in zip(work.events, states, strict=True) if state == "fresh"]
            conflicts = [event for event, state in zip(work.events, states, strict=True) if state == "conflict"]
            if work.handled is not None:
                applied = [event for event in work.events if event.record.offset in work.handled]
                settlement.outgoing += [each for event in fresh for each in work.handled.get(event.record.offset, ())]
            elif conflicts:
                raise ConflictError([event.record for event in conflicts])
            else:
                applied = fresh
                if fresh:
                    settlement.outgoing += await self.call(fresh, tries, settlement.connection)
                hit("batch_before_offset")
            if work.parked is not None:
                await parking.release(settlement, work.parked)
                hit("while_releasing")
        # A batch of repeats only queries the database, which is the sink of a consumer without another.
        if inside and (tries.asked if fresh else self.consumer.ping is None):
            self.circuit.passed()
        for event in conflicts:  # handled under two keys at the same time
            self.tally.conflicted(event.record)
        self._count(partition, work, applied)

    async def _hold(self, partition: Partition, work: Work, settlement: Settlement) -> None:
        """Lock the row of the partition if there are several records, and the rows of parked keys."""
        if work.handled is None and len(work) > 1:
            await settlement.fence(min(work.offsets))
        for record in work.behind:
            if not await parking.append(settlement, record):
                await settlement.fence(record.offset)  # fails if the database was restored and has lost the parking
                partition.claim.parked.discard(key_text(record))
                raise LiveError
        if work.parked is not None:
            head = await parking.head(settlement, key_text(work.parked), asked=True)
            if head is None or head.offset != work.parked.offset:
                raise WithdrawnError

    def _count(self, partition: Partition, work: Work, applied: Sequence[Decoded]) -> None:
        tally, topic = self.tally, partition.tp.topic
        partition.note_progress()
        tally.applied(applied)
        tally.passed_over(topic, (skip for _, skip in work.skipped))
        if work.behind:
            tally.count(topic, "parked", len(work.behind))
        if work.parked is None:
            self.park_limit.counter.note(other=len(work.events))
            if len(applied) < len(work.events):
                tally.count(topic, "duplicate", len(work.events) - len(applied))

    @asynccontextmanager
    async def transaction(
        self,
        partition: Partition,
        offsets: frozenset[int] = frozenset(),
        *,
        events: Sequence[Decoded] = (),
        effects: bool = False,
    ) -> AsyncIterator[Settlement]:
        """Open a transaction that settles `offsets` at its end, then in the window; `effects` if it runs handlers."""
        hit("before_fence")
        claim, window = partition.claim, partition.window
        with self._span("settle", events):
            async with self.ledger.begin(partition.tp, claim.epoch, claim.updated_at) as settlement:
                yield settlement
                advance = window.preview(offsets)
                updated_at = await settlement.settle(
                    next_offset=advance.next_offset, last_event_id=advance.last_event_id, above=advance.above
                )
                if effects:
                    hit("after_effect_before_commit")
        window.settle(offsets, advance=advance)
        claim.updated_at = max(claim.updated_at, updated_at)

    def _span(self, name: str, events: Sequence[Decoded]) -> AbstractContextManager[None]:
        """Return a span that is linked to the deliveries of events of one partition; none without tracing."""
        if self.tracing is None or not events:
            return nullcontext()
        topic, partition = events[0].record[:2]
        sent = [(each.traceparent, each.event.source, each.event.type) for each in events]
        return self.tracing.consume(name, group=self.consumer.group, topic=topic, partition=partition, events=sent)

    async def write_progress(self, partitions: Iterable[Partition]) -> None:
        """Write progress over skipped records, which had no transaction."""
        for partition in partitions:
            if partition.gone or not partition.opened or partition.window.written == partition.window.next_offset:
                continue
            if not self.circuit.closed:
                return
            try:
                async with self.transaction(partition):
                    pass
            except FencedError as exc:
                self.stop(partition, exc)
            except (TransientError, OSError):
                return  # settling meets the same failure, and logs it

    def on_failure(self, queue: KeyQueue, exc: Exception) -> Waits | Park:
        """Return whether to retry or park the first record of a queue after a failed attempt; log and count it."""
        failure, record, tries = classify(exc), queue.first, queue.tries
        wait_s = retry_delay_s(
            failure, tries, passes=self.circuit.passes, attempts_max=self.consumer.attempts, spread=self.spread
        )
        own = tries.may_blame(failure)
        if failure.cls == "systemic" or (failure.cls == "transient" and own):
            self.circuit.failed(code=failure.code, first=not own or tries.failures == 1)
        if wait_s is not None:
            self.tally.retried(record, failure, attempt=tries.attempt, first=tries.failures == 1)
            return Waits(wait_s)
        if failure.cls == "bug":
            self.tally.bug(at_fault(exc), queue.partition.tp, offset=record.offset)
        if failure.code == ID_CONFLICT:
            self.tally.conflicted(record)
        return Park(failure, tries.attempt, raised_at(exc, self.consumer.handle))

    async def park(
        self, partition: Partition, record: ConsumedRecord, verdict: Park, *, released: bool = False
    ) -> None:
        """Park the key of a record, or leave it parked if it was being `released`; retry while the database is down.

        After `ParkLimitError` or `ParkingFullError` (too much is parked already), nothing was written.
        """
        key, failure, offset = key_text(record), verdict.failure, frozenset((record.offset,))
        why = Why(failure.cls, failure.code, verdict.attempts, verdict.raised)

        async def write() -> bool:
            async with self.transaction(partition, frozenset() if released else offset) as settlement:
                if not released:
                    await parking.park(settlement, record, why)
                else:
                    head = await parking.head(settlement, key)
                    if head is None or head.offset != record.offset:  # an operator skipped or dropped it meanwhile
                        return False
                    await parking.park_again(settlement, record, why)
                hit("while_parking")
            return True

        # Only other producers write records without a key, so they do not indicate a faulty handler.
        counted = record.key is not None and not released
        counter = self.park_limit.counter
        with counter.room() if counted else nullcontext():
            if not await self.persist(write):
                return
        if counted:
            counter.note(parked=1)
        partition.claim.parked.add(key)
        partition.note_progress()
        self.tally.parked(record, failure, attempts=verdict.attempts)

    async def to_release(self, partition: Partition, key: str) -> ConsumedRecord | None:
        """Return the first parked record of a key, None if not parked; `WithdrawnError` if no release is requested."""
        async with self.transaction(partition) as settlement:
            head = await parking.head(settlement, key, asked=True)
        if head is None:
            partition.claim.parked.discard(key)
            tp = partition.tp
            group = self.consumer.group
            log.info("worker.release_ended", group=group, topic=tp.topic, partition=tp.partition)
        return head

    async def by_hand(self, partitions: Iterable[Partition]) -> list[tuple[Partition, str]]:
        """Return the keys that an operator has parked."""
        tps = {each.tp: each for each in partitions if not each.draining}
        rows = await parking.by_hand(self.database, self.consumer.group, tps.keys()) if tps else []
        return [(tps[tp], key) for tp, key in rows]

    async def requested(self, partitions: Iterable[Partition]) -> list[tuple[Partition, str]]:
        """Return the parked keys to be released."""
        tps = {each.tp: each for each in partitions if each.claim.parked and not each.draining}
        rows = await parking.requested(self.database, self.consumer.group, tps.keys()) if tps else []
        return [(tps[tp], key) for tp, key in rows if key in tps[tp].claim.parked]

    async def persist(self, write: Callable[[], Awaitable[_Written]]) -> _Written:
        """Write a decision, retrying until it succeeds, so that an outage does not repeat the handler's call."""
        attempt = 0
        while True:
            try:
                return await write()
            except (TransientError, OSError) as exc:
                attempt += 1
                await self.back_off(exc, attempt)

    async def back_off(self, exc: Exception, attempt: int) -> None:
        """Wait after a failure of our own statement."""
        await asyncio.sleep(self.delay_s(exc, attempt))

    def delay_s(self, exc: Exception, attempt: int) -> float:
        """Note a failure of our own statement; return the seconds until the next try."""
        failure = classify(exc)
        if failure.cls == "systemic":
            self.circuit.failed(code=failure.code)
            self.tally.sink_failed(failure.code)
        return delay_s(attempt, spread=self.spread, max_s=SYSTEMIC_MAX_S)

    def stop(self, partition: Partition, why: FencedError | StoppedError) -> None:
        """End a partition after one of `STOPS`: adopt it again if another claimed it, else wait for an operator."""
        if isinstance(why, FencedError):
            self.partitions.fence(partition)
        else:
            self.park_limit.stop(partition, why)
