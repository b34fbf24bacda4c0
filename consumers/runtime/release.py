"""Release parked keys: their records go on in order, inside the owner's own loop, then the key is live again.

An operator's request is noted on the row of the key (`drx_consumer.parked_key`). The owner of the partition finds it,
puts the key into a queue of its own and applies one parked record to a transaction, which locks the row of the key as
parking and appending do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import DecodeError, PermanentError
from bridge.runtime.failpoints import WHILE_RELEASING, hit
from bridge.runtime.logging import log
from consumers.api import Outgoing
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.failure import ID_CONFLICT, Failure, Park, Retry
from consumers.runtime.ledger import FencedError, Settlement
from consumers.runtime.parking import ParkedEvent, WithdrawnError
from consumers.runtime.partition import KeyQueue, Partition
from consumers.runtime.settling import Settling
from consumers.runtime.sorting import Asking, Skip, Sorted


class Requested(NamedTuple):
    """A key, in text form, whose release an operator has asked for."""

    partition: Partition
    key: str


class Release:
    """Finds requests for releases, and takes the steps of a queue that releases its key."""

    def __init__(self, settling: Settling, *, database: Database) -> None:
        self._settling = settling
        self._database = database

    async def requested(self, partitions: Collection[Partition]) -> list[Requested]:
        """Return the parked keys to be released; note on the way which keys an operator has parked.

        Raises:
            TransientError: The database is away.
        """
        group = self._settling.consumer.group
        places = {each.place: each for each in partitions if not each.draining}
        if not places:
            return []
        for place, key in await parking.by_hand(self._database, group, places.keys()):
            places[place].parked.add(key)
        places = {place: each for place, each in places.items() if each.parked}
        rows = await parking.requested(self._database, group, places.keys())
        return [Requested(places[place], key) for place, key in rows if key in places[place].parked]

    async def note_due(self, partition: Partition) -> None:
        """Note what to release before the first record: in a full lot one more would stop the partition again.

        Raises:
            TransientError: The database is away.
        """
        if partition.parked:
            rows = await parking.requested(self._database, self._settling.consumer.group, [partition.place])
            partition.releases.update(key for _, key in rows)

    async def step(self, queue: KeyQueue) -> float:
        """Release the first parked record of a queue's key; return after how many seconds the queue goes on.

        Raises:
            FencedError: The partition is not ours.
        """
        queue.attempt += 1
        queue.calling = False
        try:
            if self._settling.consumer.transactional:
                live = await self._inside(queue)
            else:
                live = await self._outside(queue)
        except FencedError:
            raise
        except _NotLearnedYetError as exc:
            queue.attempt -= 1
            return exc.delay_s
        except WithdrawnError:
            queue.begin_record()
            queue.releasing = False
            return 0.0
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is judged
            return await self._failed(queue, exc)
        queue.begin_record()
        queue.partition.moved()
        if live:
            queue.partition.parked.discard(queue.key)
            queue.releasing = False
            place = queue.partition.place
            group = self._settling.consumer.group
            log.info("worker.release_ended", group=group, topic=place.topic, partition=place.partition)
        return 0.0

    async def _inside(self, queue: KeyQueue) -> bool:
        """Release one record in one transaction with its effects; True when the key is live again."""
        async with self._settling.transaction(queue.partition) as settlement:
            waiting = await parking.head(settlement, queue.key, asked=True)
            if waiting is None:
                return True
            event = self._sorted(queue, waiting)
            (state,) = await settlement.admit((event.inbox,)) if event is not None else ("duplicate",)
            if state == "conflict":
                raise PermanentError(ID_CONFLICT)
            if event is not None and state == "fresh":
                await self._call(queue, event, settlement)
            live = await parking.release(settlement, waiting)
            hit(WHILE_RELEASING)
        if event is not None and state == "fresh":
            self._settling.tally.applied((event,))
        return live

    async def _outside(self, queue: KeyQueue) -> bool:
        """Call the handler between two transactions: its effects are idempotent, and its time is not theirs."""
        async with self._settling.transaction(queue.partition) as settlement:
            waiting = await parking.head(settlement, queue.key, asked=True)
            if waiting is None:
                return True
            event = self._sorted(queue, waiting)
            (state,) = await settlement.look([event.inbox]) if event is not None else ("duplicate",)
        if state == "conflict":
            raise PermanentError(ID_CONFLICT)
        outgoing: Sequence[Outgoing] = ()
        if event is not None and state == "fresh":
            outgoing = await self._call(queue, event, None)
        async with self._settling.transaction(queue.partition) as settlement:
            now = await parking.head(settlement, queue.key, asked=True)
            if now is None:
                return True
            if now.record.offset != waiting.record.offset:
                return False
            if event is not None and await settlement.admit((event.inbox,)) == ["fresh"]:
                settlement.outgoing += outgoing
            live = await parking.release(settlement, now)
            hit(WHILE_RELEASING)
        if event is not None and state == "fresh":
            self._settling.tally.applied((event,))
        return live

    def _sorted(self, queue: KeyQueue, waiting: ParkedEvent) -> Sorted | None:
        ready = self._settling.sorter.sort(waiting.record)
        if isinstance(ready, Failure):
            if ready.code == UNKNOWN_SCHEMA_ID:
                queue.asking = queue.asking or Asking()
                answer = self._settling.learner.ask(queue.asking, waiting.record)
                if not isinstance(answer, Failure):
                    raise _NotLearnedYetError(answer)
            raise DecodeError(ready.code)
        if isinstance(ready, Skip):
            self._settling.tally.passed_over(waiting.record.topic, (ready,))
            return None
        return ready

    async def _call(self, queue: KeyQueue, event: Sorted, settlement: Settlement | None) -> Sequence[Outgoing]:
        """Run the handler and return what it publishes, which goes along with the `settlement` if there is one."""
        connection = None if settlement is None else settlement.connection
        placed = self._settling.placed(event, attempt=queue.attempt, connection=connection)
        queue.calling = True
        await self._settling.call(queue.partition, (placed,), settlement)
        queue.calling = False
        self._settling.circuit.passed()
        return placed.context.outgoing

    async def _failed(self, queue: KeyQueue, exc: Exception) -> float:
        if queue.partition.gone:
            return 0.0  # the present owner of the partition goes on with the release
        verdict = self._settling.on_failure(queue, exc)
        if isinstance(verdict, Retry):
            if verdict.failure.cls != "systemic":
                self._settling.tally.count(queue.partition.place.topic, "retry")
            return verdict.delay_s
        await self._end(queue, verdict)
        return 0.0

    async def _end(self, queue: KeyQueue, verdict: Park) -> None:
        """Leave the key parked, with the reason it has now."""
        failure = verdict.failure
        waiting: ParkedEvent | None = None

        async def refuse() -> None:
            nonlocal waiting
            async with self._settling.transaction(queue.partition) as settlement:
                waiting = await parking.head(settlement, queue.key)
                if waiting is not None:
                    await parking.park_again(
                        settlement,
                        waiting,
                        cls=failure.cls,
                        code=failure.code,
                        attempts=verdict.attempts,
                        raised=verdict.raised,
                    )

        if await self._settling.persist(queue.partition, refuse) and waiting is not None:
            self._settling.tally.parked(waiting.record, failure, attempts=verdict.attempts)
        queue.begin_record()
        queue.releasing = False


class _NotLearnedYetError(Exception):
    """The schema of the record is being asked for."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s
