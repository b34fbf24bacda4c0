"""What becomes of the records of this member's partitions: adopted, offered, settled, forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Collection, Sequence
from typing import Any

import structlog

from bridge.errors import TransientError
from bridge.kafka.transport import ConsumedRecord, Place
from consumers.api import Batches, Consumer, Lanes
from consumers.postgres.pool import Database
from consumers.runtime.brake import Brake
from consumers.runtime.breaker import ParkBreaker, ParkBreakerOpenError
from consumers.runtime.circuit import Circuit
from consumers.runtime.crew import Crew
from consumers.runtime.driver import BatchDriver, Careful, batch_driver, install_releases
from consumers.runtime.failure import Spread
from consumers.runtime.holding import Holding
from consumers.runtime.key_lanes import KeyLanes
from consumers.runtime.learning import Learner
from consumers.runtime.ledger import FencedError, Ledger
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.observing import observe
from consumers.runtime.outbox import Outbox, Producer
from consumers.runtime.parker import Parker
from consumers.runtime.parking import ParkingFullError
from consumers.runtime.parts import Parts
from consumers.runtime.redrive import POLL_S, Redrive
from consumers.runtime.rounds import Rounds
from consumers.runtime.share import Share
from consumers.runtime.shares import Shares
from consumers.runtime.single import Single
from consumers.runtime.sorting import Decoder, Sorter
from consumers.runtime.subscriber import Adoption
from consumers.runtime.tally import Tally

log = structlog.get_logger()

# Batches hand what needs more than one attempt to this many lanes.
RETRY_LANES = 4
# For the marks of partitions that are given back; a row is written in milliseconds.
MARKS_S = 1.0
# What is cancelled at the end gets this long to let go of its connections.
END_S = 10.0


class Settler:
    """Implements `subscriber.Settles` for one consumer; a worker of its process."""

    def __init__(
        self,
        *,
        consumer: Consumer,
        database: Database,
        ledger: Ledger,
        decoder: Decoder,
        metrics: ConsumerMetrics,
        resource: Any = None,
        producer: Producer | None = None,
        breaker: ParkBreaker | None = None,
        learner: Learner | None = None,
        spread: Spread = random.uniform,
        release_poll_s: float = POLL_S,
    ) -> None:
        """Put the parts together.

        `producer` writes what handlers publish; without one that stays in the outbox.

        `breaker`, `learner` (whose grace is long) and `spread` (which draws delays) have usual ones; operators'
        requests for release are looked for every `release_poll_s`.
        """
        self._consumer = consumer
        self._database = database
        self._holding = Holding(ledger)
        self._metrics = metrics
        self._crew = Crew()
        self._sorter = Sorter(consumer, decoder)
        self._circuit = Circuit(
            self._ping, tells=consumer.ping is not None or consumer.transactional, metrics=metrics, spread=spread
        )
        tally = Tally(metrics, group=consumer.group, topics=consumer.topics)
        self._shares = shares = Shares(group=consumer.group, tally=tally)
        self._brake = brake = Brake(
            breaker or ParkBreaker(),
            shares,
            database=database,
            group=consumer.group,
            metrics=metrics,
            poll_s=release_poll_s,
            give_back=self._holding.give_back,
        )
        self._parts = parts = Parts(
            consumer=consumer,
            ledger=ledger,
            sorter=self._sorter,
            learner=learner or Learner(decoder),
            circuit=self._circuit,
            tally=tally,
            breaker=brake.breaker,
            spread=spread,
            resource=resource,
        )
        self._outbox: Outbox | None = None
        if producer is not None:
            self._outbox = Outbox(
                database=database, producer=producer, group=consumer.group, metrics=metrics, published=ledger.published
            )
        parker = Parker(parts)
        self._redrive = Redrive(parts, database=database, poll_s=release_poll_s)
        self._rounds = Rounds(
            parts,
            parker=parker,
            settled=lambda lane: self._lanes.finish(lane),  # noqa: PLW0108 - the lanes come after the rounds
            start=self._crew.start,
            fenced=shares.fence,
            stopped=brake.stop,
        )
        single = Single(parts, parker=parker, rounds=self._rounds, release=self._redrive.step)
        self._lanes = lanes = KeyLanes(single.step, circuit=self._circuit, fenced=shares.fence, stopped=brake.stop)
        self._careful = Careful(parts, lanes=lanes)
        self._batches: BatchDriver | None = None
        if isinstance(consumer.mode, Batches):
            self._batches = batch_driver(parts, consumer.mode, parker=parker, lanes=lanes)
        self._circuit.listen(shares.wake)

    async def adopt(self, place: Place, generation: int) -> Adoption:
        """Claim a partition; what was held of it counts for nothing.

        Raises:
            TransientError: Not now.
        """
        del generation  # the reader's: it asks again when it has moved
        await self._brake.look()
        claim = await self._holding.claim(place)
        await self._redrive.due(self._shares.adopt(place, claim))
        return Adoption(claim.next_offset, claim.last_event_id)

    def start(self, place: Place, offset: int) -> None:
        """Expect records from `offset` on."""
        share = self._shares[place]
        share.open(offset)
        if self._brake.holds(share):
            return
        if share.careful_left:
            log.warning("worker.careful", topic=place.topic, partition=place.partition, group=self._consumer.group)
        install_releases(share, self._lanes)
        share.direct = self._batches is None and not share.careful_left
        if not share.direct:
            share.driver = self._crew.start(self._drive(share))

    def offer(self, place: Place, records: Sequence[ConsumedRecord]) -> None:
        """Take records in; what was settled in an earlier life, and what nobody wants, is settled at once."""
        share = self._shares.find(place)
        if share is None or share.closed:
            return
        now, stale = asyncio.get_running_loop().time(), 0
        for record in records:
            if not share.take(record, now=now):
                stale += 1
            elif not share.direct:
                share.queue.append(record)
            elif (skip := self._sorter.skips(record)) is not None:
                share.settle((record.offset,))
                self._parts.tally.passed_over(place.topic, (skip,))
            else:
                self._lanes.put(share, record)
        if stale:
            self._parts.tally.count(place.topic, "stale", stale)
        share.wake.set()

    def room(self, place: Place) -> bool:
        """Whether more may be offered now."""
        return self._shares.room(place)

    def halted(self, place: Place) -> bool:
        """Whether nothing of a partition can be settled for long."""
        share = self._shares.find(place)
        return share is not None and (share.halted or not self._circuit.closed)

    def standing(self) -> str:
        """Return `ok`, or why records of some partition wait until an operator acts."""
        return self._brake.standing()

    def waiting(self) -> str:
        """Return `ok`, or `degraded` while nothing of a partition could be settled or released for long."""
        now = asyncio.get_running_loop().time()
        waits = self._circuit.closed and any(share.waits(now) for share in self._shares.open())
        return "degraded" if waits else "ok"

    def activity(self) -> int:
        """Return a number that moves whenever something is tried, settled or released."""
        return sum(share.activity for share in self._shares.all())

    def fenced(self, place: Place) -> bool:
        """Whether a transaction found that the partition was claimed since; to be forgotten and adopted again."""
        return self._shares.is_fenced(place)

    def mark(self, place: Place) -> int | None:
        """Return the offset below which everything is settled."""
        return self._shares.mark(place)

    async def drain(self, places: Collection[Place], *, timeout_s: float) -> None:
        """Start no new record of these; return when those in flight are settled, or given up at the end of the time."""
        settled = await self._shares.drain(places, timeout_s=timeout_s)
        # To give up costs the next owner a second look at what was skipped, and the suspicion that we died.
        with contextlib.suppress(TimeoutError, TransientError):
            async with asyncio.timeout(MARKS_S):
                await self._rounds.write_marks(settled)
                await self._holding.give_back(settled)

    def forget(self, places: Collection[Place]) -> None:
        """Drop all that is known of these."""
        self._shares.forget(places)

    async def run(self, stop: asyncio.Event) -> None:
        """Settle what is offered; after `stop` until every partition is forgotten.

        Raises:
            UnknownTypeError: The consumer fails for a type that this release does not know.
        """
        mode = self._consumer.mode
        for _ in range(mode.count if isinstance(mode, Lanes) else RETRY_LANES):
            self._crew.start(self._lanes.work())
        self._crew.start(self._circuit.work())
        self._crew.start(self._rounds.work(self._shares.open))
        self._crew.start(self._redrive.work(self._shares.open, self._release))
        if self._outbox is not None:
            self._crew.start(self._outbox.work(self._shares.open))
        self._crew.start(self._brake.work())
        self._crew.start(observe(self._metrics, self._shares.open, database=self._database, group=self._consumer.group))
        failed = asyncio.create_task(self._crew.failed())
        ending = asyncio.create_task(self._shares.forgotten(stop))
        try:
            await asyncio.wait((failed, ending), return_when=asyncio.FIRST_COMPLETED)
            self._crew.check()
        finally:
            failed.cancel()
            ending.cancel()
            self._shares.close()
            await self._parts.learner.end()
            await self._crew.end(END_S)

    async def _ping(self) -> None:
        """Ask what records are settled in, and what handlers write to, whether they work."""
        await self._parts.ledger.ping()
        if self._consumer.ping is not None:
            await self._consumer.ping(self._parts.resource)

    async def _drive(self, share: Share) -> None:
        try:
            await self._careful.drive(share)
            if self._batches is not None:
                await self._batches.drive(share)
            else:
                while share.queue:
                    self._lanes.put(share, share.queue.popleft())
                share.direct = True
        except FencedError:
            self._shares.fence(share)
        except (ParkBreakerOpenError, ParkingFullError) as exc:
            self._brake.stop(share, exc)

    async def _release(self, share: Share, key: str) -> None:
        if share.stopped:
            await self._brake.renew(share)
        elif self._batches is None:
            self._lanes.release(share, key)
        else:
            share.releases.add(key)
            share.wake.set()
