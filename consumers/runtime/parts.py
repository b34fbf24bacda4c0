"""What every part of settling works with, put together once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from bridge.errors import ConfigError, TransientError
from bridge.runtime.failpoints import AFTER_EFFECT, BEFORE_FENCE, hit
from consumers.api import BatchHandler, Consumer, Context, EventHandler, Lanes, Placed
from consumers.postgres.errors import NoConnectionError
from consumers.runtime.breaker import ParkBreaker
from consumers.runtime.calls import bounded
from consumers.runtime.circuit import Circuit
from consumers.runtime.failure import (
    ATTEMPTS_MAX,
    BLAMELESS_S,
    SYSTEMIC_MAX_S,
    Failure,
    Park,
    Retry,
    Spread,
    Verdict,
    classify,
    delay_s,
)
from consumers.runtime.learning import Learner
from consumers.runtime.ledger import Ledger, Settlement
from consumers.runtime.share import Share
from consumers.runtime.sorting import Sorted, Sorter
from consumers.runtime.tally import Tally


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that are shared.

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
    breaker: ParkBreaker
    spread: Spread = random.uniform
    resource: Any = None

    @property
    def transactional(self) -> bool:
        """Whether the handler works inside the settling transaction."""
        return self.consumer.transactional

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

    async def on_failure(self, name: Hashable, exc: Exception, *, attempt: int, handled: bool = False) -> Verdict:
        """Decide what becomes of a record of the key `name` whose `attempt` (1 for the first) failed with `exc`.

        What came after its handler had returned (`handled`), such as a deadlock at the mark, is not its fault.
        """
        failure = classify(exc)
        if failure.cls == "systemic":
            return await self._on_systemic(None if handled or isinstance(exc, NoConnectionError) else name, failure)
        self.circuit.failing.pop(name, None)
        if failure.cls == "transient" and (handled or failure.blameless):
            return Retry(failure, delay_s(1, spread=self.spread, first_s=BLAMELESS_S), counts=False)
        if failure.cls == "transient" and attempt < ATTEMPTS_MAX:
            return Retry(failure, delay_s(attempt, spread=self.spread))
        if failure.cls == "permanent":  # the sink has answered
            self.circuit.passed((name,))
        elif failure.cls == "bug":
            self.tally.bug(exc)
        return Park(failure, attempt)

    async def _on_systemic(self, name: Hashable, failure: Failure) -> Verdict:
        """Park a record only if it fails where others pass, and the sink says that it is there."""
        times = self.circuit.failed(name, code=failure.code)
        if self.circuit.at_fault(name) and await self.circuit.there():
            self.circuit.failing.pop(name, None)
            return Park(Failure("transient", failure.code), times)
        return Retry(failure, delay_s(times, spread=self.spread, max_s=SYSTEMIC_MAX_S), counts=False)

    async def persist(self, share: Share, write: Callable[[], Awaitable[None]]) -> bool:
        """Write what is decided, for as long as it takes; False when the share was lost meanwhile.

        A decision outlives an outage of the database: the handler is not asked a second time for it.
        """
        attempt = 0
        while not share.gone:
            try:
                await write()
            except (TransientError, OSError) as exc:
                attempt += 1
                share.activity += 1
                failure = classify(exc)
                if failure.cls == "systemic":
                    self.circuit.failed(code=failure.code)
                await asyncio.sleep(delay_s(attempt, spread=self.spread, max_s=SYSTEMIC_MAX_S))
            else:
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
