"""Apply a batch record by record, each under a savepoint, so that one at fault costs the others nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import PermanentError, TransientError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.failpoints import AFTER_EFFECT, BATCH_BEFORE_OFFSET, hit
from consumers.postgres.pool import is_closed
from consumers.runtime import parking
from consumers.runtime.batches import Batch, Former, Ready
from consumers.runtime.breaker import ParkBreakerOpenError
from consumers.runtime.calls import HandlerStuckError, HandlerTimeoutError
from consumers.runtime.failure import ID_CONFLICT, Park, Retry
from consumers.runtime.key_lanes import KeyLanes
from consumers.runtime.ledger import Settlement
from consumers.runtime.parker import Parker
from consumers.runtime.parking import ParkingFullError, key_text
from consumers.runtime.parts import Parts
from consumers.runtime.share import Share
from consumers.runtime.sorting import Skip, Sorted


@dataclass(slots=True)
class _Pass:
    """What one pass over a batch has done, to be noted once it is committed.

    Attributes:
        reserved: How many more the park breaker has room for on our behalf.
        held: Keys whose records wait for a retry, and those records.
        rest: Records not looked at.
        full: Nothing more may be set aside, so the pass ended there.
    """

    settled: list[int] = field(default_factory=list)
    applied: list[Sorted] = field(default_factory=list)
    duplicates: int = 0
    appended: int = 0
    parked: list[tuple[ConsumedRecord, Park]] = field(default_factory=list)
    parked_keys: set[str] = field(default_factory=set)
    skips: list[Skip] = field(default_factory=list)
    held: dict[str, list[ConsumedRecord]] = field(default_factory=dict)
    retries: dict[str, Retry] = field(default_factory=dict)
    reserved: int = 0
    rest: list[ConsumedRecord] = field(default_factory=list)
    full: ParkingFullError | ParkBreakerOpenError | None = None

    def end(self, record: ConsumedRecord, full: ParkingFullError | ParkBreakerOpenError) -> Literal[False]:
        """End the pass before a record, and keep what was done: else a lot would stay full, or not even be filled."""
        self.rest.append(record)
        self.full = full
        return False


class _AbortError(Exception):
    """Nothing of this pass can be kept; the key at fault, if there is one, goes on alone."""

    def __init__(self, key: str | None) -> None:
        """Keep the key in text form."""
        super().__init__()
        self.key = key


class Replay:
    """The slow path of batches."""

    def __init__(self, parts: Parts, *, parker: Parker, former: Former, lanes: KeyLanes) -> None:
        """Take the shared parts; records to try again go to `lanes`, records not looked at back through `former`."""
        self._parts = parts
        self._parker = parker
        self._former = former
        self._lanes = lanes

    async def apply(self, share: Share, batch: Batch) -> bool:
        """Settle what can be settled of a batch, in one transaction; the others are put where they belong.

        Should the transaction itself fail for good, every record goes on alone.

        Returns:
            False when the sink is away, and which record is at fault, if any, is still to be found.

        Raises:
            ParkBreakerOpenError: Too much is parked.
            TransientError: The database is away, or could not do it this time; all records are back.
            FencedError: The partition is not ours.
            ParkingFullError: The lot is full; what came before the record that found it so is settled.
        """
        done = _Pass()
        try:
            return await self._apply(share, batch, done)
        finally:
            self._parts.breaker.give_back(done.reserved)

    async def _apply(self, share: Share, batch: Batch, done: _Pass) -> bool:
        records = batch.records
        items = {record.offset: ready for record, ready in batch.items}
        try:
            async with self._parts.ledger.begin(share.place, share.epoch) as settlement:
                await settlement.fence(records[0].offset)
                for number, record in enumerate(records):
                    ready = items[record.offset] if record.offset in items else self._parts.sorter.sort(record)
                    if not await self._one(share, settlement, done, record, ready):
                        done.rest += records[number + 1 :]
                        break
                hit(BATCH_BEFORE_OFFSET)
                mark = share.window.preview(frozenset(done.settled))
                await settlement.settle(
                    next_offset=mark.next_offset, last_event_id=mark.last_event_id, above=mark.above
                )
                hit(AFTER_EFFECT)
        except _AbortError as abort:
            self._former.back(share, records, alone=abort.key)
            return abort.key is not None
        except PermanentError:
            # A deferred constraint, or a handler that swallowed an error: whose, only one of its own can tell.
            for record in records:
                self._lanes.put(share, record)
            return True
        except TransientError:
            self._former.back(share, records)
            raise
        share.settle(done.settled, mark=mark)
        if not share.gone:
            self._note(share, done)
        return True

    async def _one(
        self, share: Share, settlement: Settlement, done: _Pass, record: ConsumedRecord, ready: Ready
    ) -> bool:
        """Settle or hold one record; False when the pass ends here."""
        key = key_text(record)
        if key in done.held:
            done.held[key].append(record)
            return True
        if key in done.parked_keys or key in share.parked:
            try:
                appended = await parking.append(settlement, record)
            except ParkingFullError as full:
                return done.end(record, full)
            if appended:
                done.appended += 1
                done.settled.append(record.offset)
                return True
            share.parked.discard(key)
        if isinstance(ready, Skip):
            done.settled.append(record.offset)
            done.skips.append(ready)
            return True
        if isinstance(ready, Sorted):
            return await self._event(share, settlement, done, key, ready)
        if ready.code == UNKNOWN_SCHEMA_ID:
            raise _AbortError(key)
        return await self._set_aside(settlement, done, record, Park(ready, 1))

    async def _event(self, share: Share, settlement: Settlement, done: _Pass, key: str, event: Sorted) -> bool:
        """Apply one event; its inbox row goes with its effects, should they be rolled back."""
        stuck = False
        try:
            async with settlement.savepoint():
                (verdict,) = await settlement.admit((event.inbox,))
                if verdict == "conflict":
                    raise PermanentError(ID_CONFLICT)  # noqa: TRY301 - judged with what the handler raises
                if verdict == "fresh":
                    placed = self._parts.placed(event, attempt=1, connection=settlement.connection)
                    try:
                        await self._parts.call(share, (placed,), settlement)
                    except HandlerStuckError:
                        stuck = True
                        raise
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is judged
            if stuck:  # it may be using the connection, on which nothing can be done any more
                raise _AbortError(key) from None
            return await self._failed(share, settlement, done, event, exc)
        done.settled.append(event.record.offset)
        if verdict == "fresh":
            self._parts.circuit.passed((share.name(event.record),))  # of many that fail, 20 would stand in a row
            done.applied.append(event)
        else:
            done.duplicates += 1
        return True

    async def _failed(self, share: Share, settlement: Settlement, done: _Pass, event: Sorted, exc: Exception) -> bool:
        key = key_text(event.record)
        verdict = await self._parts.on_failure(share.name(event.record), exc, attempt=1)
        if not self._parts.circuit.closed:
            raise _AbortError(None) from None
        if is_closed(settlement.connection):  # nothing of the transaction can be kept, nor anything more be done in it
            raise _AbortError(key) from None
        if isinstance(verdict, Retry):
            done.held[key] = [event.record]
            done.retries[key] = verdict
            # Many of these would keep the transaction open for long.
            return not (isinstance(exc, HandlerTimeoutError) or verdict.failure.blameless)
        if verdict.failure.code == ID_CONFLICT:
            self._parts.tally.conflicted(event)
        return await self._set_aside(settlement, done, event.record, verdict)

    async def _set_aside(self, settlement: Settlement, done: _Pass, record: ConsumedRecord, park: Park) -> bool:
        if not self._parts.breaker.reserve():
            return done.end(record, ParkBreakerOpenError())
        done.reserved += 1
        try:
            async with settlement.savepoint():
                await self._parker.park(settlement, record, park.failure, attempts=park.attempts)
        except ParkingFullError as full:
            return done.end(record, full)
        done.parked.append((record, park))
        done.parked_keys.add(key_text(record))
        done.settled.append(record.offset)
        return True

    def _note(self, share: Share, done: _Pass) -> None:
        topic, tally = share.place.topic, self._parts.tally
        tally.applied(done.applied)
        tally.count(topic, "duplicate", done.duplicates)
        tally.count(topic, "parked", done.appended)
        tally.passed_over(topic, done.skips)
        self._parts.breaker.note(other=len(done.applied) + done.duplicates)
        for record, park in done.parked:
            self._parker.parked(share, record, park.failure, attempts=park.attempts)
        for key, (first, *others) in done.held.items():
            retry = done.retries[key]
            tally.retried(first, retry, attempt=1)
            self._lanes.hold(share, first, attempt=int(retry.counts), delay_s=retry.delay_s)
            for record in others:
                self._lanes.put(share, record)
        self._former.back(share, done.rest)
        if done.full is not None:
            raise done.full
