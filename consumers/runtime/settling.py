"""The steps that settling a record one by one, in batches and from the parking lot have in common.

`call` runs the handler, `on_failure` decides what becomes of a record whose attempt failed, and `transaction` writes
the result: effects, progress, parked records. Failures of several records together are judged elsewhere: a batch is
tried again or taken apart (`batches`); a round of settling is split, and the record that fails alone in it is parked
(`key_queues`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from bridge.errors import ConfigError, TransientError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.backoff import Spread
from bridge.runtime.failpoints import AFTER_EFFECT, BEFORE_FENCE, WHILE_PARKING, hit
from bridge.runtime.logging import log
from consumers.api import BatchHandler, Consumer, Context, EventHandler, Lanes, Placed
from consumers.runtime import parking
from consumers.runtime.circuit import Circuit
from consumers.runtime.failure import (
    ATTEMPTS_MAX,
    SYSTEMIC_MAX_S,
    TIMEOUT,
    Failure,
    HandlerExitError,
    Park,
    Retry,
    Verdict,
    at_fault,
    classify,
    delay_s,
    raised_at,
)
from consumers.runtime.ledger import FencedError, Ledger, Settlement
from consumers.runtime.metrics import Tally
from consumers.runtime.park_limit import ParkLimit, ParkLimitError
from consumers.runtime.parking import ParkingFullError, StoppedError, key_text
from consumers.runtime.partition import KeyQueue, Partition, Partitions
from consumers.runtime.sorting import Learner, Sorted, Sorter

# For a cancelled handler to close its connections.
CANCEL_S = 5.0

STOPS = (FencedError, ParkLimitError, ParkingFullError)
"""After these nothing of the partition is settled any more; see `Settling.stop`."""


class HandlerTimeoutError(TransientError):
    """The handler took too long."""

    def __init__(self) -> None:
        super().__init__(TIMEOUT)


class GivenUpError(TransientError):
    """The partition was taken before the handler was done."""

    def __init__(self) -> None:
        super().__init__("given_up")


class _LiveError(Exception):
    """The key is parked no more: an operator has dropped or released it."""


@dataclass(frozen=True, slots=True)
class Settling:
    """What it takes to settle a record.

    Attributes:
        spread: Draws delays; `random.uniform` but in tests.
        resource: What `Consumer.around` yielded.
    """

    consumer: Consumer
    ledger: Ledger
    sorter: Sorter
    learner: Learner
    circuit: Circuit
    tally: Tally
    partitions: Partitions
    park_limit: ParkLimit
    spread: Spread = random.uniform
    resource: Any = None

    def placed(self, event: Sorted, *, attempt: int, connection: Any) -> Placed:
        """Return what a handler is given."""
        topic, partition, offset = event.record[:3]
        context = Context(
            self.consumer.group,
            topic,
            partition,
            offset,
            event.ordinal,
            attempt,
            connection,
            self.resource,
            event.traceparent,
            event.origin,
        )
        return Placed(event.event, context)

    async def call(self, partition: Partition, placed: Sequence[Placed], settlement: Settlement | None) -> None:
        """Run the handler within its time-out; what it publishes is written by the `settlement`, if there is one.

        Raises:
            HandlerTimeoutError: It was not done in time; it may go on if it does not let itself be cancelled.
            GivenUpError: It was not started, or was cancelled, since the partition is gone.
            LookupError: It published to a topic that the consumer does not name: a bug.
        """
        if partition.gone:
            raise GivenUpError
        handle = self.consumer.handle
        if handle is None:
            message = f"consumer {self.consumer.name!r} has no handler"
            raise ConfigError(message)
        call: Callable[[], Awaitable[None]]
        if isinstance(self.consumer.mode, Lanes):
            (one,) = placed
            call = partial(cast("EventHandler", handle), one.event, one.context)
        else:
            connection = None if settlement is None else settlement.connection
            call = partial(cast("BatchHandler", handle), placed, connection)
        await _bounded(
            partition,
            _contained(call),
            timeout_s=self.consumer.handler_timeout_s,
            group=self.consumer.group,
            offset=placed[0].context.offset,
        )
        outgoing = [each for one in placed for each in one.context.outgoing]
        if any(each.topic not in self.consumer.publishes for each in outgoing):
            raise LookupError
        if settlement is not None:
            settlement.outgoing += outgoing

    def on_failure(self, queue: KeyQueue, exc: Exception) -> Verdict:
        """Decide what becomes of the first record of a queue, whose attempt failed with `exc`.

        What our own statements meet before and after the handler says nothing of the record, nor does what every record
        would meet: such an attempt is not counted. Of the rest, what may be the sink's fault as well is charged to the
        record only if calls of other keys have passed since the attempt before.
        """
        failure = classify(exc)
        if failure.cls in {"systemic", "transient"}:
            return self._on_passing(queue, exc, failure)
        if failure.cls == "permanent":  # the sink has answered
            self.circuit.passed()
        elif failure.cls == "bug":
            # What is released is not in the queue; its place is in the line that says it is parked again.
            offset = queue.records[0].offset if queue.records and not queue.releasing else None
            self.tally.bug(at_fault(exc), queue.partition.place, offset=offset)
        return Park(failure, queue.attempt, raised_at(exc, self.consumer.handle))

    def _on_passing(self, queue: KeyQueue, exc: Exception, failure: Failure) -> Verdict:
        queue.failures += 1
        own = queue.calling and not failure.blameless
        if own or failure.cls == "systemic":
            self.circuit.failed(queue.name if own else None, code=failure.code)
        if not own or failure.cls == "systemic":
            queue.attempt -= 1
            return Retry(failure, delay_s(queue.failures, spread=self.spread, max_s=SYSTEMIC_MAX_S))
        queue.charged += self.circuit.passes != queue.passes
        queue.passes = self.circuit.passes
        if queue.charged >= ATTEMPTS_MAX:
            return Park(failure, queue.attempt, raised_at(exc, self.consumer.handle))
        return Retry(failure, delay_s(queue.failures, spread=self.spread))

    async def persist(self, partition: Partition, write: Callable[[], Awaitable[None]]) -> bool:
        """Write what is decided, for as long as it takes; False when the partition was lost meanwhile.

        A decision outlives an outage of the database: the handler is not asked a second time for it.
        """
        attempt = 0
        while not partition.gone:
            try:
                await write()
            except (TransientError, OSError) as exc:
                attempt += 1
                partition.activity += 1
                failure = classify(exc)
                if failure.cls == "systemic":
                    self.circuit.failed(code=failure.code)
                await asyncio.sleep(delay_s(attempt, spread=self.spread, max_s=SYSTEMIC_MAX_S))
            else:
                return True
        return False

    @asynccontextmanager
    async def transaction(
        self, partition: Partition, offsets: frozenset[int] = frozenset(), *, effects: bool = False
    ) -> AsyncIterator[Settlement]:
        """Open a transaction that settles `offsets` at its end, and settle them in the window once it is committed.

        `effects` says that handlers work inside it.

        Raises:
            FencedError: The partition is not ours.
        """
        hit(BEFORE_FENCE)
        async with self.ledger.begin(partition.place, partition.epoch, partition.updated_at) as settlement:
            yield settlement
            advance = partition.window.preview(offsets)
            updated_at = await settlement.settle(
                next_offset=advance.next_offset,
                last_event_id=advance.last_event_id,
                above=advance.above,
            )
            if effects:
                hit(AFTER_EFFECT)
        partition.settle(offsets, advance=advance)
        partition.updated_at = max(partition.updated_at, updated_at)

    async def park(self, partition: Partition, record: ConsumedRecord, verdict: Park) -> None:
        """Park the key of a record, in a transaction of its own, however long the database is away.

        Raises:
            ParkLimitError: Too much was parked already; nothing was written.
            ParkingFullError: The parking lot is full; nothing was written.
            FencedError: The partition is not ours.
        """
        failure = verdict.failure

        async def write() -> None:
            async with self.transaction(partition, frozenset((record.offset,))) as settlement:
                await parking.park(
                    settlement,
                    record,
                    cls=failure.cls,
                    code=failure.code,
                    attempts=verdict.attempts,
                    raised=verdict.raised,
                )
                hit(WHILE_PARKING)

        # No event of ours is without a key: another producer's junk is no sign of a bad release.
        counts = record.key is not None
        with self.park_limit.counter.room() if counts else nullcontext():
            if await self.persist(partition, write):
                partition.parked.add(key_text(record))
                self.park_limit.counter.note(parked=counts)
                self.tally.parked(record, failure, attempts=verdict.attempts)

    async def append(self, partition: Partition, record: ConsumedRecord) -> bool:
        """Append a record behind its parked key and settle it; False when the key is parked no more.

        Raises:
            ParkingFullError: Too many records of the key are parked; nothing was written.
            FencedError: The partition is not ours.
        """

        async def write() -> None:
            async with self.transaction(partition, frozenset((record.offset,))) as settlement:
                if not await parking.append(settlement, record):
                    raise _LiveError

        try:
            if await self.persist(partition, write):
                self.tally.appended(record.topic)
        except _LiveError:
            partition.parked.discard(key_text(record))
            return False
        return True

    def stop(self, partition: Partition, why: FencedError | StoppedError) -> None:
        """End a partition after one of `STOPS`: adopt it again if another claimed it, else wait for an operator."""
        if isinstance(why, FencedError):
            self.partitions.fence(partition)
        else:
            self.park_limit.stop(partition, why)


async def _bounded(
    partition: Partition,
    call: Coroutine[Any, Any, None],
    *,
    timeout_s: float,
    group: str,
    offset: int,
) -> None:
    """Run a handler; what it raises comes out. `offset` is that of the first record it was given."""
    place = partition.place
    where = {"group": group, "topic": place.topic, "partition": place.partition, "offset": offset}
    task = asyncio.get_running_loop().create_task(call)
    partition.calls.add(task)
    task.add_done_callback(partition.calls.discard)
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        if not task.done():
            await _cancel(task, where)
            raise HandlerTimeoutError
        if task.cancelled():
            raise GivenUpError
        task.result()
    except asyncio.CancelledError:
        await _cancel(task, where)
        raise


async def _cancel(task: asyncio.Task[None], where: Mapping[str, Any]) -> None:
    task.cancel()
    task.add_done_callback(_retrieve)
    await asyncio.wait((task,), timeout=CANCEL_S)
    if not task.done():
        log.error("worker.handler_stuck", **where)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at what nobody waits for, so that the loop does not complain of it with a value in its words."""
    if not task.cancelled():
        task.exception()


async def _contained(call: Callable[[], Awaitable[None]]) -> None:
    """Call a handler within its own task; `asyncio` lets some of what is raised in a task end the process.

    Raises:
        HandlerExitError: It raised such a thing.
    """
    try:
        await call()
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as exc:
        raise HandlerExitError from exc
