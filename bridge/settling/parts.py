"""What every part of settling works with, put together once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from bridge.consumer import BatchHandler, Consumer, Context, EventHandler, Lanes, Placed
from bridge.errors import ConfigError, TransientError
from bridge.postgres.errors import NoConnectionError
from bridge.runtime.failpoints import AFTER_EFFECT, BEFORE_FENCE, hit
from bridge.settling.breaker import ParkBreaker
from bridge.settling.calls import bounded
from bridge.settling.dead_letters import DeadLetters
from bridge.settling.failure import Spread, Verdict, alone, classify, delay_s, judge
from bridge.settling.gate import Gate
from bridge.settling.learning import Learner
from bridge.settling.ledger import Ledger, Settlement
from bridge.settling.share import Lane, Share
from bridge.settling.sorting import Sorted, Sorter
from bridge.settling.tally import Tally

# Between attempts at what must be written whatever it takes; the database is asked often enough to be noticed back.
PERSIST_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that are shared.

    Attributes:
        spread: Draws delays; `random.uniform` but in tests.
        dead_letters: Only for consumers that are order-free.
        resource: What `Consumer.around` yielded.
    """

    consumer: Consumer
    ledger: Ledger
    sorter: Sorter
    learner: Learner
    gate: Gate
    tally: Tally
    breaker: ParkBreaker
    dead_letters: DeadLetters | None = None
    spread: Spread = random.uniform
    resource: Any = None

    @property
    def transactional(self) -> bool:
        """Whether the handler works inside the settling transaction."""
        mode = self.consumer.mode
        return not isinstance(mode, Lanes) or mode.transactional

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

    async def call(self, share: Share, placed: Sequence[Placed], settlement: Settlement | None) -> None:
        """Run the handler within its bound; what it publishes goes along with the transaction it works in, if any.

        Raises:
            LookupError: It published to a topic that the consumer does not name: a bug.
        """
        handle = self.consumer.handle
        if handle is None:
            message = f"consumer {self.consumer.name!r} has no handler"
            raise ConfigError(message)
        timeout_s = self.consumer.handler_timeout_s
        if isinstance(self.consumer.mode, Lanes):
            (one,) = placed
            call = cast("EventHandler", handle)(one.event, one.context)
        else:
            call = cast("BatchHandler", handle)(placed, None if settlement is None else settlement.connection)
        await bounded(share, _ended(call), timeout_s=timeout_s)
        outgoing = [each for one in placed for each in one.context.outgoing]
        if any(each.topic not in self.consumer.publishes for each in outgoing):
            raise LookupError
        if settlement is not None:
            settlement.outgoing += outgoing

    def again_s(self, lane: Lane, exc: Exception) -> float | None:
        """Return when to try again what is not the record's fault, or None when it is to be judged.

        A lock that does not come, a deadlock at the mark once its handler has returned, or a batch that holds the
        partition's row for long, uses up no attempt of the record.
        """
        if not isinstance(exc, TransientError) or exc.systemic or not (lane.handled or exc.blameless):
            return None
        lane.attempt -= 1
        return delay_s(1, spread=self.spread, first_s=PERSIST_MAX_S / 10)

    def verdict(self, lane_name: object, exc: Exception, *, attempt: int) -> Verdict:
        """Judge what came of a record, and tell the circuit what it says of the sink."""
        failure = classify(exc)
        if isinstance(exc, NoConnectionError):  # nobody has been asked about the record: it is no suspect
            self.gate.failed(code=failure.code)
        elif failure.cls == "systemic":
            if self.gate.failed(lane_name, code=failure.code):
                failure = alone(failure)
        elif failure.cls == "permanent":
            self.gate.passed(lane_name)
        elif failure.cls == "bug":
            self.tally.bug(exc)
        return judge(failure, attempt=attempt, spread=self.spread)

    async def persist(self, share: Share, write: Callable[[], Awaitable[None]]) -> bool:
        """Write what is decided, for as long as it takes; False when the share was lost meanwhile.

        A decision outlives an outage of the database: the handler is not asked a second time for it.
        """
        attempt = 0
        while not share.gone:
            try:
                await write()
            except TransientError as exc:
                attempt += 1
                if exc.systemic:
                    self.gate.failed(code=exc.code)
                await asyncio.sleep(delay_s(attempt, spread=self.spread, max_s=PERSIST_MAX_S))
            else:
                if attempt:
                    self.gate.passed()
                return True
        return False

    @asynccontextmanager
    async def settling(
        self, share: Share, offsets: frozenset[int], *, effects: bool = False
    ) -> AsyncIterator[Settlement]:
        """Open a transaction that settles `offsets` at its end, and settle them in the window once it is committed.

        `effects` says that handlers work inside it.
        """
        hit(BEFORE_FENCE)
        async with self.ledger.begin(share.place, share.epoch) as settlement:
            yield settlement
            mark = share.window.preview(offsets)
            await settlement.settle(next_offset=mark.next_offset, last_event_id=mark.last_event_id, above=mark.above)
            if effects:
                hit(AFTER_EFFECT)
        share.settle(offsets, mark=mark)


async def _ended(call: Awaitable[None]) -> None:
    await call
