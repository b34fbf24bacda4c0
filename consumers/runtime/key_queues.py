"""Handle keys side by side, and the records of each key one by one, in order.

`put` appends a record to the queue of its key, and a task for each queue settles its records one after another: each is
applied, found to be a duplicate, skipped or parked, however often it must be tried. An attempt takes a *lane*; between
two attempts its key waits and holds none.

Where the handler works inside the settling transaction, effects and progress are committed together. Where it does not,
the inbox is asked before the handler is called and its record is settled after it has returned, both in rounds
(`rounds`): the more keys are in hand, the fewer transactions a record costs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import TransientError
from bridge.kafka.transport import ConsumedRecord, Place
from bridge.runtime.failpoints import AFTER_EFFECT, hit
from consumers.runtime.failure import ID_CONFLICT, Failure, Park, Retry, Tries
from consumers.runtime.ledger import InboxState
from consumers.runtime.parking import ParkedEvent, WithdrawnError, key_text
from consumers.runtime.partition import KeyQueue, Partition
from consumers.runtime.rounds import Rounds
from consumers.runtime.settling import STOPS, ConflictError, LiveError, Settling, Work
from consumers.runtime.sorting import Learner, Sorted, UnknownTypeError
from consumers.runtime.tasks import Tasks

# Rounds of settling at a time, of all partitions; each is of one. With one more, a commit is on its way while the next
# transaction is prepared; with twelve, each would hold a record or two, and a record would cost twice the CPU time.
ROUNDS_MAX = 2
# Records for each lane that are handled and not settled yet: enough that lanes do not wait for a database whose commit
# takes as long as a request. A process that dies has their effects repeated, and those of what the lanes have in hand.
HANDLED_PER_LANE = 4


class _EndedError(Exception):
    """No more records of the partition are to be handled."""


class _SchemaError(Exception):
    """The schema of the record is not known here."""


class _Lanes:
    """So many keys are handled at a time; who has waited longest is next: a queue that begins, or one that goes on.

    A window holds thousands of keys: a task for each from the start would take more memory than their records.
    """

    def __init__(self, count: int, *, begin: Callable[[KeyQueue], None]) -> None:
        """Call `begin` for a queue that holds a lane from then on."""
        self._free = count
        self._begin = begin
        self._waiting: deque[KeyQueue | asyncio.Future[None]] = deque()

    def enter(self, queue: KeyQueue) -> None:
        """Have a queue begin once there is a lane for it."""
        self._waiting.append(queue)
        self._hand_out()

    async def acquire(self) -> None:
        """Wait for a lane."""
        lane: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(lane)
        self._hand_out()
        try:
            await lane
        except asyncio.CancelledError:
            if lane.done() and not lane.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give a lane back."""
        self._free += 1
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            each = self._waiting.popleft()
            if isinstance(each, KeyQueue):
                if each.partition.may_start:
                    self._free -= 1
                    self._begin(each)
            elif not each.done():
                self._free -= 1
                each.set_result(None)


class _Lane:
    """What a queue holds for an attempt at a record of its partition."""

    def __init__(self, partition: Partition, settling: Settling, *, lanes: _Lanes, handled: asyncio.Semaphore) -> None:
        """Begin with a lane."""
        self._partition = partition
        self._settling = settling
        self._lanes = lanes
        self._handled = handled
        self._held: _Lanes | asyncio.Semaphore | None = lanes

    async def __aenter__(self) -> Self:
        """Wait for a lane, and until a record may be tried.

        Raises:
            _EndedError: None of the partition may be tried any more.
        """
        if self._held is None:
            await self._lanes.acquire()
            self._held = self._lanes
        await self._settling.circuit.admitted()
        if not self._partition.may_start:
            raise _EndedError
        self._settling.tally.tried()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hold nothing between two attempts."""
        self.leave()

    async def give_up(self) -> None:
        """Let another key be handled, unless too many records that were handled wait to be settled."""
        await self._handled.acquire()
        self._lanes.release()
        self._held = self._handled

    def leave(self) -> None:
        """Give back what is held."""
        held, self._held = self._held, None
        if held is not None:
            held.release()


@dataclass(slots=True)
class _Head:
    """The first record of a queue.

    Attributes:
        parked: It, if it is parked and to be released.
        unreadable: Why it cannot be read, once the registry does not know its schema.
    """

    queue: KeyQueue
    record: ConsumedRecord
    parked: ParkedEvent | None = None
    tries: Tries = field(default_factory=Tries)
    unreadable: Failure | None = None


class KeyQueues:
    """The key queues of all partitions."""

    def __init__(self, settling: Settling, *, learner: Learner, lanes: int, tasks: Tasks) -> None:
        """Handle as many keys at a time as there are `lanes`; queues and rounds run among `tasks`."""
        self._settling = settling
        self._learner = learner
        self._tasks = tasks
        self._lanes = _Lanes(lanes, begin=self._begin)
        self._handled = asyncio.Semaphore(HANDLED_PER_LANE * lanes)
        self._slots = asyncio.Semaphore(ROUNDS_MAX)
        # Of equal events one is asked about in a round: the second would be called a duplicate of one that is not
        # settled yet, and if that one is never applied, the event would be lost.
        self._looks: Rounds[Sorted, InboxState] = Rounds(
            self._look,
            name=lambda event: event.inbox[:2],
            back_off=settling.back_off,
            tasks=tasks,
            slots=asyncio.Semaphore(1),
        )
        self._rounds: dict[Place, tuple[Partition, Rounds[Work, None]]] = {}

    def put(self, partition: Partition, record: ConsumedRecord) -> None:
        """Let a record wait behind those of its key."""
        self._queue(partition, key_text(record)).records.append(record)

    def release(self, partition: Partition, key: str) -> None:
        """Let the parked records of a key go first.

        A request is found again and again while it stands; only the release that it begins is progress.
        """
        queue = self._queue(partition, key)
        if not queue.releasing:
            queue.releasing = True
            partition.moved()

    def release_due(self, partition: Partition) -> None:
        """Begin the releases that were requested; never while a batch is in hand, which may hold records of the key."""
        for key in partition.releases & partition.claim.parked:
            self.release(partition, key)
        partition.releases.clear()

    def _queue(self, partition: Partition, key: str) -> KeyQueue:
        queue = partition.queues.get(key)
        if queue is None:
            queue = partition.queues[key] = KeyQueue(partition, key)
            self._lanes.enter(queue)
        return queue

    def _begin(self, queue: KeyQueue) -> None:
        lane = _Lane(queue.partition, self._settling, lanes=self._lanes, handled=self._handled)
        queue.task = self._tasks.start(self._work(queue, lane))
        # However it ends: a task that is cancelled before its first step runs no `finally`.
        queue.task.add_done_callback(lambda _: lane.leave())

    async def _work(self, queue: KeyQueue, lane: _Lane) -> None:
        """Settle the records of a queue until there are none; raises what the process cannot outlive."""
        partition = queue.partition
        try:
            while partition.may_start and (queue.releasing or queue.records):
                if queue.releasing:
                    await self._release(queue, lane)
                else:
                    await self._settle(_Head(queue, queue.records[0]), lane)
                    if partition.may_start:
                        queue.records.popleft()
        except _EndedError:
            return
        except STOPS as exc:
            self._settling.stop(partition, exc)
        finally:
            partition.queues.pop(queue.key, None)
            partition.wake.set()

    async def _release(self, queue: KeyQueue, lane: _Lane) -> None:
        """Release the first parked record of the key; none is left once the key is live, or one has failed again."""
        parked: ParkedEvent | None = None
        for failures in itertools.count(1):
            try:
                async with lane:
                    parked = await self._settling.to_release(queue.partition, queue.key)
            except WithdrawnError:
                break
            except (TransientError, OSError) as exc:
                await self._settling.back_off(exc, failures)
            else:
                break
        if parked is None:
            queue.releasing = False
        else:
            await self._settle(_Head(queue, parked.record, parked), lane)

    async def _settle(self, head: _Head, lane: _Lane) -> None:
        """Settle a record, however often it must be tried."""
        while True:
            try:
                async with lane:
                    delay_s = await self._attempt(head, lane)
            except _SchemaError:
                head.tries.attempt -= 1
                head.unreadable = await self._learner.learn(head.record)
            else:
                if delay_s is None:
                    return
                await asyncio.sleep(delay_s)

    async def _attempt(self, head: _Head, lane: _Lane) -> float | None:
        """Settle a record, or return after how many seconds to try again.

        Raises:
            FencedError: The partition is not ours.
            ParkLimitError: Too much is parked.
            ParkingFullError: The parking lot is full.
            UnknownTypeError: The consumer fails for a type that this release does not know.
        """
        settling, tries = self._settling, head.tries
        tries.attempt += 1
        tries.calling = False
        try:
            await self._settle_once(head, lane)
        except (*STOPS, UnknownTypeError, _EndedError, _SchemaError):
            raise
        except WithdrawnError:
            return None  # what is to be released now is asked again
        except Exception as exc:  # noqa: BLE001 - whatever a handler raises is judged
            verdict = settling.on_failure(head.queue, head.record, tries, exc)
            if isinstance(verdict, Retry):
                settling.tally.retried(head.record, verdict.failure, attempt=tries.attempt)
                return verdict.delay_s
            if verdict.failure.code == ID_CONFLICT:
                settling.tally.conflicted(head.record)
            await self._park(head, verdict)
        return None

    async def _settle_once(self, head: _Head, lane: _Lane) -> None:
        settling, partition, record = self._settling, head.queue.partition, head.record
        if head.parked is None and head.queue.key in partition.claim.parked:
            with suppress(LiveError), partition.in_hand():
                await settling.settle(partition, Work(behind=[record]), head.tries)
                return
        ready = head.unreadable or settling.sorter.sort(record)
        if isinstance(ready, Failure):
            if ready.code == UNKNOWN_SCHEMA_ID and head.unreadable is None:
                raise _SchemaError
            await self._park(head, Park(ready, head.tries.attempt))
            return
        work = Work(parked=head.parked)
        work.add(record, ready)
        if settling.consumer.transactional or not work.events:
            with partition.in_hand():
                await settling.settle(partition, work, head.tries)
        else:
            await self._settle_outside(partition, work, head.tries, lane)

    async def _settle_outside(self, partition: Partition, work: Work, tries: Tries, lane: _Lane) -> None:
        """Run the handler, whose effects are idempotent, and settle its record in the next round."""
        settling, (event,) = self._settling, work.events
        state = await self._looks.ask(event)
        if state == "conflict":
            raise ConflictError([event.record])
        if not partition.may_start:
            raise _EndedError
        with partition.in_hand():
            work.handled = {}
            if state == "fresh":
                work.handled[event.record.offset] = await settling.call((event,), tries)
                settling.circuit.passed()
                hit(AFTER_EFFECT)
            await lane.give_up()
            if work.parked is None:
                await self._rounds_of(partition).ask(work)
            else:
                await settling.persist(lambda: settling.settle(partition, work, tries))

    async def _look(self, events: Sequence[Sorted]) -> Sequence[InboxState]:
        """Ask the inbox whether events were handled before; another process may handle them meanwhile."""
        return await self._settling.ledger.look([event.inbox for event in events])

    def _rounds_of(self, partition: Partition) -> Rounds[Work, None]:
        owner, rounds = self._rounds.get(partition.place, (None, None))
        if rounds is None or owner is not partition:

            async def settle(works: Sequence[Work]) -> Sequence[None]:
                whole = Work(handled={})
                for work in works:
                    whole.events += work.events
                    whole.handled = {**(whole.handled or {}), **(work.handled or {})}
                await self._settling.settle(partition, whole, Tries())
                return [None] * len(works)

            rounds = Rounds(settle, name=id, back_off=self._settling.back_off, tasks=self._tasks, slots=self._slots)
            self._rounds[partition.place] = partition, rounds
        return rounds

    async def _park(self, head: _Head, verdict: Park) -> None:
        partition = head.queue.partition
        with partition.in_hand():
            await self._settling.park(partition, head.record, verdict, released=head.parked is not None)
