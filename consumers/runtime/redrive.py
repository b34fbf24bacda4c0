"""Release parked keys inside the owner's own apply loop: their records in order, then the key is live again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import DecodeError, PermanentError, TransientError
from bridge.runtime.failpoints import WHILE_RELEASING, hit
from consumers.api import Outgoing
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.failure import DEATHS_MAX, DIED, ID_CONFLICT, Failure, Park, Retry
from consumers.runtime.key_lanes import After, Next
from consumers.runtime.ledger import FencedError, Settlement, mark_release
from consumers.runtime.parking import ParkedEvent
from consumers.runtime.parts import Parts
from consumers.runtime.share import Lane, Share
from consumers.runtime.sorting import Skip, Sorted

# How soon an operator sees that a release has begun.
POLL_S = 1.0


class Redrive:
    """Asks for releases, and takes the steps of a lane that releases its key."""

    def __init__(self, parts: Parts, *, database: Database, poll_s: float = POLL_S) -> None:
        """Take the shared parts; ask once in `poll_s`."""
        self._parts = parts
        self._database = database
        self._poll_s = poll_s

    async def work(
        self, shares: Callable[[], Collection[Share]], release: Callable[[Share, str], Awaitable[None]]
    ) -> None:
        """Learn which keys an operator has set aside, and call `release` for those to be released, until cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            places = {share.place: share for share in shares() if not share.draining}
            if not places:
                continue
            with suppress(TransientError):  # what settles records will find out the same, and says so
                for place, key in await parking.by_hand(self._database, self._parts.consumer.group, places.keys()):
                    places[place].parked.add(key)
                places = {place: share for place, share in places.items() if share.parked}
                for place, key in await parking.requested(self._database, self._parts.consumer.group, places.keys()):
                    if key in places[place].parked:
                        await release(places[place], key)

    async def due(self, share: Share) -> None:
        """Note what is to be released before the first record: in a full lot one more would stop the partition again.

        Raises:
            TransientError: The database is away.
        """
        if share.parked:
            rows = await parking.requested(self._database, self._parts.consumer.group, [share.place])
            share.releases.update(key for _, key in rows)

    async def step(self, lane: Lane) -> Next | After:
        """Release the first parked record of a lane's key, in one transaction.

        Raises:
            FencedError: The partition is not ours.
        """
        if not lane.marked and not await self._harmless(lane):
            return Next.AGAIN
        lane.attempt += 1
        lane.handled = False
        try:
            if self._parts.transactional:
                return await self._inside(lane)
            return await self._outside(lane)
        except FencedError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is judged
            return await self._failed(lane, exc)

    async def _harmless(self, lane: Lane) -> bool:
        """Mark a release that begins; False when processes died of it too often, or it was refused since it was seen.

        Once a life: a record that kills is the first of its key in every life but the one that came to it.
        """
        began: int | None = None

        async def mark() -> None:
            nonlocal began
            async with self._parts.settling(lane.share, frozenset()) as settlement:
                began = await mark_release(settlement.connection, settlement.group, lane.share.place, lane.key)

        if not await self._parts.persist(lane.share, mark):
            return False
        lane.marked = lane.releasing = began is not None
        if began is not None and began > DEATHS_MAX:
            await self._end(lane, Park(DIED, DEATHS_MAX))
        return lane.releasing

    async def _inside(self, lane: Lane) -> Next:
        share = lane.share
        async with self._parts.settling(share, frozenset()) as settlement:
            waiting = await parking.head(settlement, lane.key)
            if waiting is not None:
                event = self._sorted(waiting)
                if event is not None and await self._fresh(settlement, event):
                    await self._call(lane, event, settlement)
                live = await parking.release(settlement, waiting)
                hit(WHILE_RELEASING)
        return self._released(lane, live=waiting is None or live)

    async def _outside(self, lane: Lane) -> Next:
        """Call the handler between two transactions: its effects are idempotent, and its time is not theirs."""
        share = lane.share
        async with self._parts.settling(share, frozenset()) as settlement:
            waiting = await parking.head(settlement, lane.key)
            if waiting is None:
                return self._released(lane, live=True)
            event = self._sorted(waiting)
            (verdict,) = await settlement.look([event.inbox]) if event is not None else ("duplicate",)
        if verdict == "conflict":
            raise PermanentError(ID_CONFLICT)
        outgoing: Sequence[Outgoing] = ()
        if event is not None and verdict == "fresh":
            outgoing = await self._call(lane, event, None)
        async with self._parts.settling(share, frozenset()) as settlement:
            now = await parking.head(settlement, lane.key)
            live = now is None
            if now is not None and now.record.offset == waiting.record.offset:
                if event is not None and await settlement.admit((event.inbox,)) == ["fresh"]:
                    settlement.outgoing += outgoing
                live = await parking.release(settlement, now)
                hit(WHILE_RELEASING)
        return self._released(lane, live=live)

    def _sorted(self, waiting: ParkedEvent) -> Sorted | None:
        ready = self._parts.sorter.sort(waiting.record)
        if isinstance(ready, Failure):
            if ready.code == UNKNOWN_SCHEMA_ID:
                answer = self._parts.learner.ask(waiting.record)
                if not isinstance(answer, Failure):
                    raise _LearningError(answer)
            raise DecodeError(ready.code)
        if isinstance(ready, Skip):
            self._parts.tally.passed_over(waiting.record.topic, (ready,))
            return None
        return ready

    async def _fresh(self, settlement: Settlement, event: Sorted) -> bool:
        (verdict,) = await settlement.admit((event.inbox,))
        if verdict == "conflict":
            raise PermanentError(ID_CONFLICT)
        return verdict == "fresh"

    async def _call(self, lane: Lane, event: Sorted, settlement: Settlement | None) -> Sequence[Outgoing]:
        """Run the handler and return what it publishes, which goes along with the `settlement` if there is one."""
        connection = None if settlement is None else settlement.connection
        placed = self._parts.placed(event, attempt=lane.attempt, connection=connection)
        await self._parts.call(lane.share, (placed,), settlement)
        lane.handled = True
        self._parts.circuit.passed((lane.name,))
        self._parts.tally.applied((event,))
        return placed.context.outgoing

    def _released(self, lane: Lane, *, live: bool) -> Next:
        lane.attempt = 0
        lane.share.moved()
        if live:
            lane.share.parked.discard(lane.key)
            lane.releasing = lane.marked = False
        return Next.AGAIN

    async def _failed(self, lane: Lane, exc: Exception) -> Next | After:
        if isinstance(exc, _LearningError):
            lane.attempt -= 1
            return After(exc.delay_s)
        verdict = await self._parts.on_failure(lane.name, exc, attempt=lane.attempt, handled=lane.handled)
        if isinstance(verdict, Retry):
            if verdict.failure.cls != "systemic":
                self._parts.tally.count(lane.share.place.topic, "retry")
            lane.attempt -= not verdict.counts
            return After(verdict.delay_s)
        await self._end(lane, verdict)
        return Next.AGAIN

    async def _end(self, lane: Lane, verdict: Park) -> None:
        await self._parts.persist(lane.share, lambda: self._refuse(lane, verdict))
        lane.attempt = 0
        lane.releasing = lane.marked = False

    async def _refuse(self, lane: Lane, verdict: Park) -> None:
        """Leave the key parked, with what is wrong with it now."""
        failure = verdict.failure
        async with self._parts.settling(lane.share, frozenset()) as settlement:
            waiting = await parking.head(settlement, lane.key)
            if waiting is not None:
                await parking.park_again(
                    settlement, waiting, cls=failure.cls, code=failure.code, attempts=verdict.attempts
                )


class _LearningError(Exception):
    """The schema of the record is being asked for."""

    def __init__(self, delay_s: float) -> None:
        """Keep when to come again."""
        super().__init__()
        self.delay_s = delay_s
