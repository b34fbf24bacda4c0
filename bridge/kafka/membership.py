"""Be a member of the group through one client: the one poll task, the listener of rebalances, and an orderly end.

The listener only starts a new tenure of each partition, drains and commits; adopting is the poll task's, since records
flow before the client has heard the listener out. Nobody cancels the poll task.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Iterator, Sequence
from typing import Any, Protocol

import structlog
from prometheus_client import Counter, Gauge

from bridge.errors import ConfigError
from bridge.kafka.adoption import HINTS, Adopter, Stopped, Tenure, is_same_log
from bridge.kafka.committer import Committer
from bridge.kafka.settles import Settles
from bridge.kafka.transport import ConsumedRecord, Place, Transport, TransportError
from bridge.kafka.watchdog import Watchdog

log = structlog.get_logger()

# One poll without records: how late a halt, a rebalance or the stop is noticed.
POLL_S = 0.1
# The same while a partition has no room, or is being adopted: that may be over in milliseconds.
CROWDED_S = 0.01
# After a poll that failed, so that a failure that stays does not become a hot loop.
FAILED_S = 0.25

# For a drain to notice its own time-out.
CLOSE_S = 1.0


class MembershipMetrics(Protocol):
    """What is reported."""

    service: str
    consumer_rebalances: Counter
    consumer_assigned_partitions: Gauge
    consumer_paused_partitions: Gauge


class Membership:
    """One client from joining to leaving.

    Attributes:
        started: True once the client has found the cluster.
        refused: True while the cluster does not let us read (ACL).
    """

    def __init__(
        self,
        *,
        transport: Transport,
        settles: Settles,
        adopter: Adopter,
        committer: Committer,
        watchdog: Watchdog,
        metrics: MembershipMetrics,
        group: str,
        generations: Iterator[int],
        drain_s: float,
    ) -> None:
        """Number the tenures by `generations`; `drain_s` is well below the rebalance time-out."""
        self.started = False
        self.refused = False
        self._transport = transport
        self._settles = settles
        self._adopter = adopter
        self._committer = committer
        self._watchdog = watchdog
        self._metrics = metrics
        self._group = group
        self._generations = generations
        self._drain_s = drain_s
        self._tenures: dict[Place, Tenure] = {}
        self._finishing = asyncio.Event()
        self._beside: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None

    @property
    def tenures(self) -> Collection[Tenure]:
        """What is ours now."""
        return self._tenures.values()

    async def run(self) -> None:
        """Join and read until `finish`.

        Raises:
            TransportError: The client must be replaced.
        """
        await self._transport.start(self)
        self.started = True
        for each in (self._committer.run(self._finishing), self._watchdog.run(self._finishing)):
            self._beside.append(asyncio.create_task(self._noting(each)))
        while not self._finishing.is_set():
            if self._failure is not None:
                raise self._failure
            await self._read()

    def finish(self) -> None:
        """Have `run` return after the poll that is out."""
        self._finishing.set()

    async def leave(self) -> None:
        """Drain, commit, leave the group; after `run` has ended, however it did."""
        self._finishing.set()
        try:
            await self._give_back(list(self._tenures))
            await asyncio.gather(*self._beside)
        finally:
            await self._transport.stop()

    async def revoked(self, places: frozenset[Place]) -> None:
        """Give back what is taken; until this returns it is ours."""
        self._watchdog.left()
        # The client would swallow what is raised here.
        await self._noting(self._give_back(places))

    def assigned(self, places: frozenset[Place]) -> None:
        """Begin a new tenure of each; the poll task does the rest."""
        self._watchdog.given()
        self._tenures = {place: Tenure(place, next(self._generations)) for place in places}
        self._metrics.consumer_rebalances.labels(self._metrics.service, "assigned").inc()
        log.info("worker.assigned", group=self._group, partitions=len(places))

    async def _noting(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - the poll task raises it
            self._failure = exc

    async def _give_back(self, places: Collection[Place]) -> None:
        # From here on a batch that is being fetched is dropped.
        ours = [place for place in places if place in self._tenures]
        for place in ours:
            self._tenures.pop(place).end()
        outcome = "ok"
        try:
            with contextlib.suppress(TimeoutError):  # what it still holds fails at its fence
                async with asyncio.timeout(self._drain_s + CLOSE_S):
                    await self._settles.drain(ours, timeout_s=self._drain_s)
            outcome = await self._committer.commit(ours)
        finally:
            self._let_go(ours)
        if ours:
            kind = "lost" if outcome == "not_member" else "revoked"
            self._metrics.consumer_rebalances.labels(self._metrics.service, kind).inc()
            log.info("worker.revoked", group=self._group, partitions=len(ours), code=outcome)

    def _let_go(self, places: Collection[Place]) -> None:
        self._committer.let_go(places)
        self._settles.forget(places)
        self._watchdog.end(places)

    async def _read(self) -> None:
        """Poll once; what belongs to another tenure than the one it was asked for is dropped."""
        self._arrange()
        reading = [each for each in self._tenures.values() if (each.reading or each.expected) and not each.halted]
        asked = {each.place: each for each in reading if not each.reading or self._settles.room(each.place)}
        adopting = any(not each.reading and not each.stopped for each in self._tenures.values())
        crowded = adopting or len(asked) < len(reading)
        try:
            found = await self._transport.poll(asked, timeout_s=CROWDED_S if crowded else POLL_S)
            self.refused = False
        except TransportError as exc:
            await self._bear(exc)
            return
        finally:
            self._watchdog.polled()
        for place, records in found.items():
            if self._tenures.get(place) is asked[place]:
                self._take(asked[place], records)

    def _arrange(self) -> None:
        for tenure in list(self._tenures.values()):
            place = tenure.place
            if tenure.claim is None:
                self._transport.pause([place])
                tenure.claim = asyncio.create_task(self._adopter.adopt(place, tenure.generation))
            elif tenure.reading:
                self._settle_down(tenure)
            elif tenure.claim.done() and tenure.expected is None and not tenure.stopped:
                self._adopted(tenure)
        paused = sum(not each.reading or each.halted for each in self._tenures.values())
        self._metrics.consumer_paused_partitions.labels(self._metrics.service).set(paused)
        self._metrics.consumer_assigned_partitions.labels(self._metrics.service).set(len(self._tenures))

    def _settle_down(self, tenure: Tenure) -> None:
        if self._settles.fenced(tenure.place):
            self._renew(tenure.place)
        elif tenure.halted != self._settles.halted(tenure.place):
            tenure.halted = not tenure.halted
            (self._transport.pause if tenure.halted else self._transport.resume)([tenure.place])

    def _renew(self, place: Place) -> None:
        """Adopt it again: what is in hand of it counts for nothing."""
        self._let_go([place])
        self._tenures[place] = Tenure(place, next(self._generations))

    def _adopted(self, tenure: Tenure) -> None:
        assert tenure.claim is not None  # noqa: S101 - for the type checker
        verdict = tenure.claim.result()
        if isinstance(verdict, Stopped):
            self._stop(tenure, verdict.code)
            return
        check = verdict.expected_id is not None
        self._transport.seek(tenure.place, verdict.offset - check)
        self._transport.resume([tenure.place])
        tenure.expected = verdict
        if not check:
            self._begin(tenure)

    def _begin(self, tenure: Tenure) -> None:
        assert tenure.expected is not None  # noqa: S101 - as above
        offset = tenure.expected.offset
        self._settles.start(tenure.place, offset)
        self._committer.hold(tenure.place, tenure.expected.committed)
        self._watchdog.begin(tenure.place, offset)
        tenure.reading = True

    def _take(self, tenure: Tenure, records: Sequence[ConsumedRecord]) -> None:
        if not tenure.reading and tenure.expected is not None:
            if not is_same_log(tenure.expected, records):
                self._stop(tenure, "topic_recreated")
                return
            self._begin(tenure)
            records = [each for each in records if each.offset >= tenure.expected.offset]
        if records:
            self._watchdog.offered(tenure.place, records)
            self._settles.offer(tenure.place, records)

    def _stop(self, tenure: Tenure, code: str) -> None:
        """Read it no more; the others go on."""
        tenure.stopped = code
        tenure.expected = None
        self._transport.pause([tenure.place])
        place = {"topic": tenure.place.topic, "partition": tenure.place.partition}
        log.error("worker.partition_stopped", group=self._group, **place, code=code, hint=HINTS[code])
        if code == "not_initialized" and all(each.stopped == code for each in self._tenures.values()):
            msg = f"nothing says where group {self._group!r} begins; {HINTS[code]}"
            raise ConfigError(msg)

    async def _bear(self, exc: TransportError) -> None:
        """Mend what a failed poll tells, or raise."""
        if exc.code == "offset_out_of_range":  # expired or cut off while we read: the adoption says which
            for place in exc.places & self._tenures.keys():
                self._renew(place)
        elif exc.code == "refused":
            self.refused = True
        else:
            # `offset_missing`: Kafka has lost the group's offsets; ours are committed on the way out.
            raise exc
        await asyncio.sleep(FAILED_S)
