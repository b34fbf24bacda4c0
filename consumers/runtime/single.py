"""Take one step of a lane: settle its first record, or say when to come again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import PermanentError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.failpoints import AFTER_EFFECT, hit
from consumers.api import Outgoing
from consumers.runtime.failure import DEATHS_MAX, DIED, ID_CONFLICT, Failure, Retry
from consumers.runtime.key_lanes import After, Next
from consumers.runtime.ledger import FencedError
from consumers.runtime.parker import Parker
from consumers.runtime.parking import ParkingFullError
from consumers.runtime.parts import Parts
from consumers.runtime.rounds import Rounds
from consumers.runtime.share import Lane, Share
from consumers.runtime.sorting import Skip, Sorted


class Single:
    """Handles records one by one, with or without the settling transaction around the handler."""

    def __init__(
        self, parts: Parts, *, parker: Parker, rounds: Rounds, release: Callable[[Lane], Awaitable[Next | After]]
    ) -> None:
        """Take the shared parts; `release` takes the steps of a lane whose parked records go first."""
        self._parts = parts
        self._parker = parker
        self._rounds = rounds
        self._release = release

    async def step(self, lane: Lane) -> Next | After:
        """Settle the first record of a lane.

        Raises:
            FencedError: The partition is not ours.
            ParkBreakerOpenError: Too much is parked.
            ParkingFullError: The lot is full.
            BridgeError: What the process cannot outlive.
        """
        if lane.releasing:
            return await self._release(lane)
        share, record = lane.share, lane.records[0]
        if lane.key in share.parked:
            if await self._parker.append(share, record):
                return Next.DONE
            share.parked.discard(lane.key)
        if share.suspect == record.offset and not await self._harmless(share, record):
            return Next.DONE
        ready = self._parts.sorter.sort(record)
        if isinstance(ready, Skip):
            share.settle((record.offset,))  # nothing needs to be written for it at once
            self._parts.tally.passed_over(record.topic, (ready,))
            return Next.DONE
        if isinstance(ready, Failure):
            return await self._unreadable(lane, record, ready)
        return await self._attempt(lane, ready)

    async def _harmless(self, share: Share, record: ConsumedRecord) -> bool:
        """Mark a record that is about to be handled; False when it killed the process too often, and is set aside."""
        attempts = 0

        async def mark() -> None:
            nonlocal attempts
            attempts = await self._parts.ledger.mark_attempt(share.place, share.epoch, record.offset)

        if not await self._parts.persist(share, mark):
            return False  # nor is anything of the partition left to be settled here
        share.suspect, share.attempted = None, record.offset  # once a life, however often it is tried
        if attempts > DEATHS_MAX:
            await self._parker.set_aside(share, record, DIED, attempts=DEATHS_MAX)
        return attempts <= DEATHS_MAX

    async def _unreadable(self, lane: Lane, record: ConsumedRecord, failure: Failure) -> Next | After:
        share = lane.share
        share.away.discard(lane.key)
        if failure.code == UNKNOWN_SCHEMA_ID:
            answer = self._parts.learner.ask(record)
            if not isinstance(answer, Failure):
                if self._parts.learner.away(record):
                    share.away.add(lane.key)
                return After(answer)
            failure = answer
        await self._parker.set_aside(share, record, failure, attempts=1)
        return Next.DONE

    async def _attempt(self, lane: Lane, event: Sorted) -> Next | After:
        lane.attempt += 1
        lane.handled = False
        lane.share.away.discard(lane.key)
        try:
            if self._parts.transactional:
                await self._apply_inside(lane, event)
                return Next.DONE
            await self._apply_outside(lane, event)
        except (FencedError, ParkingFullError):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is judged
            return await self._failed(lane, event, exc)
        return Next.HANDED

    async def _apply_inside(self, lane: Lane, event: Sorted) -> None:
        share, offset = lane.share, event.record.offset
        async with self._parts.settling(share, frozenset((offset,)), effects=True) as settlement:
            (verdict,) = await settlement.admit((event.inbox,))
            if verdict == "conflict":
                raise PermanentError(ID_CONFLICT)
            if verdict == "fresh":
                placed = self._parts.placed(event, attempt=lane.attempt, connection=settlement.connection)
                await self._parts.call(share, (placed,), settlement)
                lane.handled = True
        self._parts.circuit.passed((lane.name,))
        self._parts.breaker.note(other=1)
        if verdict == "fresh":
            self._parts.tally.applied((event,))
        else:
            self._parts.tally.count(event.record.topic, "duplicate")

    async def _apply_outside(self, lane: Lane, event: Sorted) -> None:
        outgoing: Sequence[Outgoing] = ()
        verdict = await self._rounds.look(lane.share, event.inbox)
        if verdict == "conflict":
            raise PermanentError(ID_CONFLICT)
        if verdict == "fresh":
            placed = self._parts.placed(event, attempt=lane.attempt, connection=None)
            await self._parts.call(lane.share, (placed,), None)
            outgoing = placed.context.outgoing
            self._parts.circuit.passed((lane.name,))
            hit(AFTER_EFFECT)
        self._rounds.finish(lane, event, applied=verdict == "fresh", outgoing=outgoing)

    async def _failed(self, lane: Lane, event: Sorted, exc: Exception) -> Next | After:
        if lane.share.gone:
            return Next.AGAIN  # nobody is left to whom it matters
        verdict = await self._parts.on_failure(lane.name, exc, attempt=lane.attempt, handled=lane.handled)
        if isinstance(verdict, Retry):
            self._parts.tally.retried(event.record, verdict, attempt=lane.attempt)
            lane.attempt -= not verdict.counts
            return After(verdict.delay_s)
        if verdict.failure.code == ID_CONFLICT:
            self._parts.tally.conflicted(event)
        await self._parker.set_aside(lane.share, event.record, verdict.failure, attempts=verdict.attempts)
        return Next.DONE
