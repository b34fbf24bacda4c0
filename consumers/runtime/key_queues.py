"""Handle several keys concurrently, and the records of each key one by one, in order.

`put` appends a record to the queue of its key. Workers take ready queues, the longest waiting first, and try the first
record of each. It is applied, skipped, parked or found to be a duplicate; or its queue is ready again after a delay. An
attempt occupies a *lane*; a key that waits for its next attempt or for the open circuit occupies neither lane nor
worker.

If the handler works inside the settling transaction, effects and progress are committed together. Otherwise the inbox
is read before the handler is called, and the record is settled after it returned. Both are done for many keys in one
transaction (`rounds`): the more keys are in progress, the fewer transactions per record.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import TransientError
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.runtime.failpoints import hit
from consumers.api import Outgoing
from consumers.runtime.decoding import Decoded, Learner, UnknownTypeError
from consumers.runtime.ledger import InboxState
from consumers.runtime.parking import WithdrawnError, key_text
from consumers.runtime.partition import KeyQueue, Partition
from consumers.runtime.retry_policy import Failure, Park, Tries, Waits
from consumers.runtime.rounds import Rounds
from consumers.runtime.settling import STOPS, ConflictError, LiveError, Settling, Work
from consumers.runtime.tasks import Tasks

# Concurrent rounds of settling, each of one partition. With two, a commit is in flight while the next transaction is
# prepared; with twelve, each would have a record or two, and a record would take twice the CPU time.
ROUNDS_MAX = 2
# Records per lane that are handled and not settled yet: enough that lanes do not wait for a database whose commit takes
# as long as a request. If the process dies, their effects are repeated, and those in progress in the lanes.
HANDLED_PER_LANE = 4


class Step(Enum):
    """The next step of a key queue after its turn, unless it `Waits`."""

    NEXT = auto()
    """Its first record is settled or parked."""
    AGAIN = auto()
    """Nothing was done for its first record."""
    HELD = auto()
    """The circuit is open, and will wake it."""
    LEARN = auto()
    """The schema of its first record must be fetched."""


class KeyQueues:
    """The key queues of all partitions; their workers must run (`begin`)."""

    def __init__(self, settling: Settling, *, learner: Learner, lanes: int, tasks: Tasks) -> None:
        """Handle at most `lanes` keys at a time; workers and rounds run in `tasks`."""
        self._settling = settling
        self._learner = learner
        self._tasks = tasks
        self._lanes = asyncio.Semaphore(lanes)
        self._workers = lanes if settling.consumer.transactional else lanes * (1 + HANDLED_PER_LANE)
        self._ready: asyncio.Queue[KeyQueue] = asyncio.Queue()
        self._slots = asyncio.Semaphore(ROUNDS_MAX)
        # Equal events are not looked up in the same round: the second would count as a duplicate of one that is not
        # settled yet, and be lost if that one is never applied.
        self._lookups: Rounds[Decoded, InboxState] = Rounds(
            self._look_up,
            name=lambda event: event.inbox[:2],
            back_off=settling.back_off,
            tasks=tasks,
            slots=asyncio.Semaphore(1),
        )

    def begin(self) -> None:
        """Start the workers."""
        for _ in range(self._workers):
            self._tasks.start(self._work())

    def put(self, partition: Partition, record: ConsumedRecord) -> None:
        """Append a record to the queue of its key."""
        self._queue(partition, key_text(record)).records.append(record)

    def release(self, partition: Partition, key: str) -> None:
        """Handle a key's parked records first; a pending request is queried again, and only its start is progress."""
        queue = self._queue(partition, key)
        if not queue.releasing:
            queue.releasing = True
            partition.note_progress()

    def set_aside(self, partition: Partition, key: str) -> None:
        """Park the records of a key, even while the circuit is open, since that does not call the sink."""
        partition.claim.parked.add(key)
        queue = partition.queues.get(key)
        if queue is not None:
            queue.resume()

    def release_due(self, partition: Partition) -> None:
        """Begin requested releases, but not during a batch, which may contain records of the key."""
        for key in sorted(partition.releases & partition.claim.parked):
            self.release(partition, key)
        partition.releases.clear()

    def _queue(self, partition: Partition, key: str) -> KeyQueue:
        queue = partition.queues.get(key)
        if queue is None:
            queue = partition.queues[key] = KeyQueue(partition, key, self._ready)
            self._ready.put_nowait(queue)
        return queue

    async def _work(self) -> None:
        """Try the first record of one queue after another; raises if the process must end."""
        task: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]  # there is one
        while True:
            queue = await self._ready.get()
            queue.task = task
            try:
                step = await self._turn(queue)
            except asyncio.CancelledError:
                if not queue.was_cancelled(task):
                    raise
                step = Step.AGAIN
            finally:
                queue.task = None
            self._advance(queue, step)
            del queue  # an idle worker holds nothing of a closed partition

    def _advance(self, queue: KeyQueue, step: Step | Waits) -> None:
        """Do the next step of a queue, unless it is empty."""
        partition = queue.partition
        if step is Step.NEXT:
            queue.end_first()
        if not partition.may_start or not (queue.releasing or queue.records):
            partition.queues.pop(queue.key, None)
            partition.wake.set()
        elif isinstance(step, Waits):
            asyncio.get_running_loop().call_later(step.delay_s, self._ready.put_nowait, queue)
        elif step is Step.HELD:
            self._settling.circuit.hold(queue)
        elif step is Step.LEARN:
            queue.task = self._tasks.start(self._learn(queue))
        else:
            self._ready.put_nowait(queue)

    async def _turn(self, queue: KeyQueue) -> Step | Waits:
        """Try a queue's first record or begin its release."""
        partition = queue.partition
        if not partition.may_start:
            return Step.AGAIN
        await self._lanes.acquire()
        queue.has_lane = True
        try:
            if not partition.may_start:
                return Step.AGAIN
            if queue.releasing and queue.parked is None:
                return await self._begin_release(queue)
            # Kept separately: a partition that is stopped meanwhile drops the other records.
            queue.first = queue.records[0] if queue.parked is None else queue.parked
            return await self._attempt(queue)
        except STOPS as exc:
            self._settling.stop(partition, exc)
            return Step.AGAIN
        finally:
            self._leave(queue)

    def _leave(self, queue: KeyQueue) -> None:
        """Release the lane if still held: the sink is not called again in this turn."""
        self._settling.circuit.ended(queue)
        if queue.has_lane:
            queue.has_lane = False
            self._lanes.release()

    async def _learn(self, queue: KeyQueue) -> None:
        queue.unreadable = await self._learner.learn(queue.first)
        queue.task = None
        self._advance(queue, Step.AGAIN)

    async def _begin_release(self, queue: KeyQueue) -> Step | Waits:
        """Take the first parked record of the key; none if the key is not parked any more, or a record failed again."""
        try:
            queue.parked = await self._settling.to_release(queue.partition, queue.key)
        except WithdrawnError:
            pass
        except (TransientError, OSError) as exc:
            queue.tries.failures += 1
            return Waits(self._settling.delay_s(exc, queue.tries.failures))
        queue.tries = Tries()
        queue.releasing = queue.parked is not None
        return Step.AGAIN

    async def _attempt(self, queue: KeyQueue) -> Step | Waits:
        """Settle or park the first record, if possible now."""
        tries = queue.tries
        tries.attempt += 1
        tries.calling = False
        try:
            step = await self._settle_once(queue)
        except (*STOPS, UnknownTypeError):
            raise
        except WithdrawnError:
            return Step.NEXT  # the record to release is read again
        except Exception as exc:  # noqa: BLE001 - any exception of a handler is classified
            verdict = self._settling.on_failure(queue, exc)
            if isinstance(verdict, Waits):
                return verdict
            await self._park(queue, verdict)
            return Step.NEXT
        if step is not Step.NEXT:  # no attempt was made
            tries.attempt -= 1
        return step

    async def _settle_once(self, queue: KeyQueue) -> Step:
        settling, partition, record, tries = self._settling, queue.partition, queue.first, queue.tries
        if queue.parked is None and queue.key in partition.claim.parked:
            with suppress(LiveError), partition.in_progress():
                await settling.settle(partition, Work(behind=[record]), tries)
                return Step.NEXT
        ready = queue.unreadable or settling.record_decoder.decode(record)
        if isinstance(ready, Failure):
            if ready.code == UNKNOWN_SCHEMA_ID and queue.unreadable is None:
                return Step.LEARN
            await self._park(queue, Park(ready, tries.attempt))
            return Step.NEXT
        work = Work(parked=queue.parked)
        work.add(record, ready)
        if not settling.consumer.transactional and work.events:
            return await self._settle_outside(queue, work)
        if work.events and not settling.circuit.admits(queue):
            return Step.HELD
        with partition.in_progress():
            await settling.settle(partition, work, tries)
        return Step.NEXT

    async def _settle_outside(self, queue: KeyQueue, work: Work) -> Step:
        """Run the handler, whose effects are idempotent, and settle its record in the next round."""
        settling, partition, (event,) = self._settling, queue.partition, work.events
        state = await self._lookups.ask(event)
        if state == "conflict":
            raise ConflictError([event.record])
        if not partition.may_start:
            return Step.AGAIN
        if state == "fresh" and not settling.circuit.admits(queue):
            return Step.HELD
        with partition.in_progress():
            work.handled = {}
            if state == "fresh":
                work.handled[event.record.offset] = await settling.call((event,), queue.tries)
                if queue.tries.asked:
                    settling.circuit.passed()
                hit("after_effect_before_commit")
            self._leave(queue)
            if work.parked is None:
                await self._rounds_of(partition).ask(work)
            else:
                await settling.persist(lambda: settling.settle(partition, work, queue.tries))
        return Step.NEXT

    async def _look_up(self, events: Sequence[Decoded]) -> Sequence[InboxState]:
        """Look up in the inbox whether events were handled before; another process may still handle them."""
        return await self._settling.ledger.look([event.inbox for event in events])

    def _rounds_of(self, partition: Partition) -> Rounds[Work, None]:
        if partition.rounds is None:

            async def settle(works: Sequence[Work]) -> Sequence[None]:
                handled: dict[int, Sequence[Outgoing]] = {}
                for work in works:
                    handled.update(work.handled or {})
                events = [event for work in works for event in work.events]
                await self._settling.settle(partition, Work(events, handled=handled), Tries())
                return [None] * len(works)

            partition.rounds = Rounds(
                settle, name=id, back_off=self._settling.back_off, tasks=self._tasks, slots=self._slots
            )
        return partition.rounds

    async def _park(self, queue: KeyQueue, verdict: Park) -> None:
        partition = queue.partition
        with partition.in_progress():
            await self._settling.park(partition, queue.first, verdict, released=queue.parked is not None)
