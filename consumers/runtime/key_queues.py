"""Handle keys side by side, and the records of each key one by one, in order.

`put` appends a record to the queue of its key. A worker takes the queue that has waited longest, and one step settles
its first record: the record is applied, found to be a duplicate, skipped, or parked. One that is to be tried again
keeps its place, and its key waits for a timer, not in the hands of a worker.

Where the handler works inside the settling transaction, effects and progress are committed together. Where it does not,
the inbox is asked before the handler is called and its record is settled after it has returned, both in rounds: all
that came while one was on makes the next one. So the more keys are in hand, the fewer transactions a record costs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import PermanentError, TransientError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.failpoints import AFTER_EFFECT, hit
from consumers.api import Lanes, Outgoing
from consumers.runtime.failure import (
    ID_CONFLICT,
    SYSTEMIC_MAX_S,
    Failure,
    Park,
    Retry,
    classify,
    delay_s,
)
from consumers.runtime.ledger import FencedError, Inbox, InboxState
from consumers.runtime.parking import key_text
from consumers.runtime.partition import Handled, KeyQueue, Partition
from consumers.runtime.release import Release
from consumers.runtime.settling import STOPS, Settling
from consumers.runtime.sorting import Asking, Skip, Sorted
from consumers.runtime.tasks import Tasks

# Rounds of settling at a time, of all partitions; each is of one. With one more, a commit is on its way while the next
# transaction is prepared; with twelve, each would hold a record or two, and a record would cost twice the CPU time.
ROUNDS_MAX = 2
# Records for each lane that are handled and not settled yet: enough that lanes do not wait for a database whose commit
# takes as long as a request. A process that dies has their effects repeated, and those of what the lanes have in hand.
HANDLED_PER_LANE = 4
# Progress over records that nobody wanted is written this often; to lose it costs a repeated skip.
PROGRESS_S = 1.0


class Next(Enum):
    """What follows a step; a number of seconds instead of it: the step is to be taken again after these."""

    SETTLED = auto()
    """The first record is settled, or will never be here."""
    HANDLED = auto()
    """The handler has returned; a round settles the record."""


class _Look(NamedTuple):
    """An event that the inbox is to be asked about, and who waits for the answer."""

    partition: Partition
    entry: Inbox
    answer: asyncio.Future[InboxState]


class _UnansweredError(Exception):
    """The inbox could not be asked, and of the partition nothing is started any more."""


class KeyQueues:
    """The key queues of all partitions; `work` is run by as many tasks as keys may be in hand at a time."""

    def __init__(self, settling: Settling, *, release: Release, tasks: Tasks) -> None:
        """Rounds run among `tasks`."""
        self._settling = settling
        self._circuit = settling.circuit
        self._transactional = settling.consumer.transactional
        self._release = release
        self._tasks = tasks
        self._ready: deque[KeyQueue] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._rounds = asyncio.Semaphore(ROUNDS_MAX)
        lanes = settling.consumer.mode.count if isinstance(settling.consumer.mode, Lanes) else 1
        self._handled_slots = asyncio.Semaphore(HANDLED_PER_LANE * lanes)
        # What the inbox is to be asked about in the next round.
        self._looked_for: list[_Look] = []
        self._looking = False
        self._circuit.listen(self._wake_all)

    def put(self, partition: Partition, record: ConsumedRecord) -> None:
        """Let a record wait behind those of its key."""
        queue = self._queue(partition, key_text(record))
        queue.records.append(record)
        if queue.state == "idle":
            self._make_ready(queue)

    def release(self, partition: Partition, key: str) -> None:
        """Let the parked records of a key go first.

        A request is found again and again while it stands; only the release that it begins is progress.
        """
        queue = self._queue(partition, key)
        if queue.releasing:
            return
        queue.releasing = True
        partition.moved()
        if queue.state == "idle":
            self._make_ready(queue)

    def release_due(self, partition: Partition) -> None:
        """Begin the releases that were requested; never while a batch is in hand, which may hold records of the key."""
        for key in partition.releases & partition.parked:
            self.release(partition, key)
        partition.releases.clear()

    async def work(self) -> None:
        """Take steps until cancelled; raises what the process cannot outlive."""
        while True:
            queue = await self._take()
            partition = queue.partition
            partition.begin()
            following: Next | float | None = None
            try:
                following = await self._step(queue)
            except STOPS as exc:
                self._settling.stop(partition, exc)
            finally:
                if following is not Next.HANDLED:
                    partition.end()
            if following is not None and following is not Next.HANDLED:
                self._follow(queue, following)
            partition.wake.set()

    async def _take(self) -> KeyQueue:
        """Wait for the queue that has waited longest."""
        ready = self._ready
        while True:
            while ready and not ready[0].partition.may_start:
                ready.popleft()
            if ready and self._circuit.admits():
                queue = ready.popleft()
                queue.state = "busy"
                return queue
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def _queue(self, partition: Partition, key: str) -> KeyQueue:
        queue = partition.queues.get(key)
        if queue is None:
            queue = partition.queues[key] = KeyQueue(partition, key)
        return queue

    def _follow(self, queue: KeyQueue, following: Next | float) -> None:
        partition = queue.partition
        if partition.gone or partition.stopped:
            return
        if following is Next.SETTLED:
            queue.records.popleft()
            queue.begin_record()
        elif not isinstance(following, Next) and following > 0:
            queue.state = "waiting"
            queue.timer = asyncio.get_running_loop().call_later(following, self._make_ready, queue)
            return
        if queue.records or queue.releasing:
            self._make_ready(queue)
        else:
            queue.state = "idle"
            partition.queues.pop(queue.key, None)

    def _make_ready(self, queue: KeyQueue) -> None:
        queue.state = "ready"
        queue.timer = None
        self._ready.append(queue)
        self._wake()

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        while self._idle:
            self._wake()

    async def _step(self, queue: KeyQueue) -> Next | float:
        """Settle the first record of a queue, or say when to try again.

        Raises:
            FencedError: The partition is not ours.
            ParkLimitError: Too much is parked.
            ParkingFullError: The parking lot is full.
            BridgeError: What the process cannot outlive.
        """
        if queue.releasing:
            return await self._release.step(queue)
        partition, record = queue.partition, queue.records[0]
        if queue.key in partition.parked and await self._settling.append(partition, record):
            return Next.SETTLED
        ready = self._settling.sorter.sort(record)
        if isinstance(ready, Skip):
            partition.settle((record.offset,))  # nothing needs to be written for it at once
            self._settling.tally.passed_over(record.topic, (ready,))
            return Next.SETTLED
        if isinstance(ready, Failure):
            return await self._unreadable(queue, record, ready)
        return await self._attempt(queue, ready)

    async def _unreadable(self, queue: KeyQueue, record: ConsumedRecord, failure: Failure) -> Next | float:
        """Park a record that cannot be decoded, unless the registry may still know its schema."""
        if failure.code == UNKNOWN_SCHEMA_ID:
            queue.asking = queue.asking or Asking()
            answer = self._settling.learner.ask(queue.asking, record)
            if not isinstance(answer, Failure):
                return answer
            failure = answer
        await self._settling.park(queue.partition, record, Park(failure, 1))
        return Next.SETTLED

    async def _attempt(self, queue: KeyQueue, event: Sorted) -> Next | float:
        queue.attempt += 1
        queue.calling = False
        try:
            if self._transactional:
                await self._apply_inside(queue, event)
                return Next.SETTLED
            await self._apply_outside(queue, event)
        except FencedError:
            raise
        except _UnansweredError:
            queue.attempt -= 1
            return 0.0
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is judged
            return await self._failed(queue, event, exc)
        return Next.HANDLED

    async def _apply_inside(self, queue: KeyQueue, event: Sorted) -> None:
        """Run the handler inside the transaction that settles its record."""
        settling, partition = self._settling, queue.partition
        offsets = frozenset((event.record.offset,))
        async with settling.transaction(partition, offsets, effects=True) as settlement:
            (state,) = await settlement.admit((event.inbox,))
            if state == "conflict":
                raise PermanentError(ID_CONFLICT)
            if state == "fresh":
                placed = settling.placed(event, attempt=queue.attempt, connection=settlement.connection)
                queue.calling = True
                await settling.call(partition, (placed,), settlement)
                queue.calling = False
        settling.circuit.passed()
        settling.park_limit.counter.note(other=1)
        if state == "fresh":
            settling.tally.applied((event,))
        else:
            settling.tally.count(event.record.topic, "duplicate")

    async def _apply_outside(self, queue: KeyQueue, event: Sorted) -> None:
        """Run the handler, whose effects are idempotent, and leave its record to the next round."""
        settling, partition = self._settling, queue.partition
        state = await self._look(partition, event.inbox)
        if state == "conflict":
            raise PermanentError(ID_CONFLICT)
        outgoing: Sequence[Outgoing] = ()
        if state == "fresh":
            placed = settling.placed(event, attempt=queue.attempt, connection=None)
            queue.calling = True
            await settling.call(partition, (placed,), None)
            queue.calling = False
            outgoing = placed.context.outgoing
            settling.circuit.passed()
            hit(AFTER_EFFECT)
        await self._handled_slots.acquire()
        partition.handled.append(Handled(queue, event, state == "fresh", outgoing))
        if not partition.settling:
            partition.settling = True
            self._tasks.start(self._settle_rounds(partition))

    async def _look(self, partition: Partition, entry: Inbox) -> InboxState:
        """Ask the inbox whether an event was handled before; another process may handle it meanwhile.

        An outage of the database is waited out: it says nothing of the record.

        Raises:
            PermanentError: The inbox cannot be asked about this event.
            _UnansweredError: The database is away, and nothing of the partition is started any more.
        """
        look = _Look(partition, entry, asyncio.get_running_loop().create_future())
        self._looked_for.append(look)
        if not self._looking:
            self._looking = True
            self._tasks.start(self._look_rounds())
        return await look.answer

    async def _look_rounds(self) -> None:
        attempt = 0
        try:
            while self._looked_for:
                # Of equal events one is asked about in a round: `look` would call the second a duplicate of one that is
                # not settled yet, and if that one is never applied, the event would be lost.
                asked: dict[tuple[str, str], _Look] = {}
                later = [one for one in self._looked_for if asked.setdefault(one.entry[:2], one) is not one]
                self._looked_for = later
                try:
                    await self._look_round(list(asked.values()))
                except (TransientError, OSError) as exc:
                    attempt += 1
                    self._looked_for = [*asked.values(), *self._looked_for]
                    await self._wait_to_look(attempt, classify(exc))
                else:
                    attempt = 0
        finally:
            self._looking = False

    async def _look_round(self, asked: Sequence[_Look]) -> None:
        """Ask about events together; when one of them is at fault, about each by itself.

        Raises:
            TransientError: The database is away; some may have their answers.
        """
        try:
            states = await self._settling.ledger.look([one.entry for one in asked])
        except (TransientError, OSError):
            raise
        except Exception as exc:  # noqa: BLE001 - the record that waits is judged by it
            if len(asked) > 1:
                for one in asked:
                    await self._look_round((one,))
            elif not asked[0].answer.done():
                asked[0].answer.set_exception(exc)
            return
        for one, state in zip(asked, states, strict=True):
            if not one.answer.done():
                one.answer.set_result(state)

    async def _wait_to_look(self, attempt: int, failure: Failure) -> None:
        """Wait after a round that failed, and let go of those that are not to be started any more."""
        if failure.cls == "systemic":
            self._circuit.failed(code=failure.code)
        for one in self._looked_for:
            one.partition.activity += 1
        await asyncio.sleep(delay_s(attempt, spread=self._settling.spread, max_s=SYSTEMIC_MAX_S))
        for one in self._looked_for:
            if not (one.partition.may_start or one.answer.done()):
                one.answer.set_exception(_UnansweredError)
        self._looked_for = [one for one in self._looked_for if not one.answer.done()]

    async def _failed(self, queue: KeyQueue, event: Sorted, exc: Exception) -> Next | float:
        if queue.partition.gone:
            return 0.0  # the present owner of the partition tries the record again
        attempt = queue.attempt
        verdict = self._settling.on_failure(queue, exc)
        if isinstance(verdict, Retry):
            self._settling.tally.retried(event.record, verdict.failure, attempt=attempt)
            return verdict.delay_s
        if verdict.failure.code == ID_CONFLICT:
            self._settling.tally.conflicted(event)
        await self._settling.park(queue.partition, event.record, verdict)
        return Next.SETTLED

    async def _settle_rounds(self, partition: Partition) -> None:
        try:
            while partition.handled:
                handled, partition.handled = partition.handled, []
                await self._settle_round(partition, handled, gathers=True)
        finally:
            partition.settling = False

    async def _settle_round(self, partition: Partition, handled: list[Handled], *, gathers: bool) -> None:
        """Settle records of one partition together; when one of them is at fault, each by itself.

        A round that `gathers` takes along what is handled until it has a slot.
        """

        async def write() -> None:
            async with self._rounds:  # none is held between two attempts
                if gathers:
                    handled.extend(partition.handled)
                    partition.handled.clear()
                await self._settle(partition, handled)

        try:
            await self._settling.persist(partition, write)
        except FencedError as exc:
            self._settling.stop(partition, exc)
        except PermanentError as exc:
            if len(handled) > 1:
                for each in handled:
                    await self._settle_round(partition, [each], gathers=False)
                return
            await self._park(partition, handled[0].event, classify(exc))
        for each in handled:
            self._handled_slots.release()
            partition.end()
            self._follow(each.queue, Next.SETTLED)
        partition.wake.set()

    async def _settle(self, partition: Partition, handled: Sequence[Handled]) -> None:
        settling = self._settling
        offsets = frozenset(each.event.record.offset for each in handled)
        async with settling.transaction(partition, offsets) as settlement:
            states = await settlement.admit([each.event.inbox for each in handled])
            for each, state in zip(handled, states, strict=True):
                if state == "fresh":
                    settlement.outgoing += each.outgoing
        for each, state in zip(handled, states, strict=True):
            if state == "conflict":  # of another key, and at the same moment: both were handled
                settling.tally.conflicted(each.event)
        applied = [each.event for each in handled if each.applied]
        settling.tally.applied(applied)
        if len(applied) < len(handled):
            settling.tally.count(partition.place.topic, "duplicate", len(handled) - len(applied))
        settling.park_limit.counter.note(other=len(handled))

    async def _park(self, partition: Partition, event: Sorted, failure: Failure) -> None:
        try:
            await self._settling.park(partition, event.record, Park(failure, 1))
        except STOPS as exc:
            self._settling.stop(partition, exc)

    async def write_progress(self, partitions: Iterable[Partition]) -> None:
        """Write progress that was made without a transaction, over records that nobody wanted."""
        for partition in list(partitions):
            if partition.gone or not partition.opened or partition.written == partition.window.next_offset:
                continue
            if not self._circuit.closed:
                return
            try:
                async with self._settling.transaction(partition):
                    pass
            except FencedError as exc:
                self._settling.stop(partition, exc)
            except (TransientError, OSError):
                return  # what settles records finds out the same, and logs it
