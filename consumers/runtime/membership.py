"""Be a member of the group through one client: the one poll task, the listener of rebalances, and an orderly end.

The listener only starts a new tenure of each partition, drains and commits; adopting is the poll task's, since records
flow before the client has heard the listener out. Nobody cancels the poll task.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from bridge.errors import ConfigError
from bridge.kafka.transport import ConsumedRecord, Place, Transport, TransportError
from consumers.runtime.adoption import HINTS, Adopter, Start, Stopped, Tenure, is_same_log
from consumers.runtime.committer import Committer
from consumers.runtime.settles import Settles
from consumers.runtime.watchdog import SubscriberMetrics, Watchdog

log = structlog.get_logger()

# One poll without records: how late a halt, a rebalance or the stop is noticed.
POLL_S = 0.1
# The same while a partition has no room, or is being adopted: that may be over in milliseconds.
CROWDED_S = 0.01
# After a poll that failed, so that a failure that stays does not become a hot loop.
FAILED_S = 0.25
# For a drain to notice its own time-out.
CLOSE_S = 1.0


class Membership:
    """One client from joining to leaving.

    Attributes:
        tenures: What is ours now.
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
        metrics: SubscriberMetrics,
        group: str,
        generations: Iterator[int],
        drain_s: float,
    ) -> None:
        """Number the tenures by `generations`; `drain_s` is well below the rebalance time-out."""
        self.started = self.refused = False
        self._transport = transport
        self._settles = settles
        self._adopter = adopter
        self._committer = committer
        self._watchdog = watchdog
        self._rebalances = partial(metrics.consumer_rebalances.labels, metrics.service)
        for kind in ("assigned", "revoked", "lost"):
            self._rebalances(kind)
        self._assigned_partitions = metrics.consumer_assigned_partitions.labels(metrics.service)
        self._paused_partitions = metrics.consumer_paused_partitions.labels(metrics.service)
        self._group = group
        self._generations = generations
        self._drain_s = drain_s
        self.tenures: dict[Place, Tenure] = {}
        self._finishing = asyncio.Event()
        self._beside: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None

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
        for each in self._beside:
            each.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        try:
            await self._give_back(list(self.tenures))
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
        self._let_go(self._take_away(list(self.tenures)))  # nothing, unless the client has left `revoked` out
        self.tenures = {place: Tenure(place, next(self._generations)) for place in places}
        self._rebalances("assigned").inc()
        log.info("worker.assigned", group=self._group, partitions=len(places))

    async def _noting(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - the poll task raises it
            self._failure = exc

    async def _give_back(self, places: Collection[Place]) -> None:
        ours = self._take_away(places)
        outcome = "ok"
        try:
            with contextlib.suppress(TimeoutError):  # what it still holds fails at its fence
                async with asyncio.timeout(self._drain_s + CLOSE_S):
                    await self._settles.drain(ours, timeout_s=self._drain_s)
            outcome = await self._committer.commit(ours)
        finally:
            self._let_go(ours)
        if ours:
            self._rebalances("lost" if outcome == "not_member" else "revoked").inc()
            log.info("worker.revoked", group=self._group, partitions=len(ours), code=outcome)

    def _take_away(self, places: Collection[Place]) -> list[Place]:
        """End the tenures, so that a batch which is being fetched is dropped; return those there were."""
        ours = [place for place in places if place in self.tenures]
        for place in ours:
            self.tenures.pop(place).end()
        return ours

    def _let_go(self, places: Collection[Place]) -> None:
        self._committer.let_go(places)
        self._settles.forget(places)
        self._watchdog.end(places)

    async def _read(self) -> None:
        """Poll once; what belongs to another tenure than the one it was asked for is dropped."""
        self._arrange()
        reading = [
            each
            for each in self.tenures.values()
            if (each.reading or each.expected) and not each.halted and not each.stopped
        ]
        asked = {each.place: each for each in reading if not each.reading or self._settles.room(each.place)}
        adopting = any(not each.reading and not each.stopped for each in self.tenures.values())
        crowded = adopting or len(asked) < len(reading)
        try:
            found = await self._transport.poll(asked, timeout_s=CROWDED_S if crowded else POLL_S)
            self.refused = False
        except TransportError as exc:
            await self._bear(exc, asked)
            return
        finally:
            self._watchdog.polled()
        for place, records in found.items():
            if self.tenures.get(place) is asked[place]:
                self._take(asked[place], records)

    def _arrange(self) -> None:
        for tenure in list(self.tenures.values()):
            if tenure.claim is None:
                self._transport.pause([tenure.place])
                tenure.claim = asyncio.create_task(self._adopter.adopt(tenure.place, tenure.generation))
            elif tenure.reading:
                self._follow(tenure)
            elif tenure.claim.done() and tenure.expected is None and not tenure.stopped:
                self._adopted(tenure, tenure.claim.result())
        self._assigned_partitions.set(len(self.tenures))
        still = [each for each in self.tenures.values() if not each.reading or each.halted or each.stopped]
        self._paused_partitions.set(len(still))

    def _follow(self, tenure: Tenure) -> None:
        halted = self._settles.halted(tenure.place)
        if self._settles.fenced(tenure.place):
            self._renew(tenure.place)
        elif tenure.halted != halted and not tenure.stopped:
            tenure.halted = halted
            (self._transport.pause if halted else self._transport.resume)([tenure.place])

    def _renew(self, place: Place) -> None:
        """Adopt it again: what is in hand of it counts for nothing."""
        self._let_go(self._take_away([place]))
        self.tenures[place] = Tenure(place, next(self._generations))

    def _adopted(self, tenure: Tenure, verdict: Start | Stopped) -> None:
        if isinstance(verdict, Stopped):
            self._stop(tenure, verdict.code)
            return
        compares = verdict.expected_id is not None
        self._transport.seek(tenure.place, verdict.offset - compares)
        self._transport.resume([tenure.place])
        if compares:
            tenure.expected = verdict
        else:
            self._begin(tenure, verdict)

    def _begin(self, tenure: Tenure, start: Start) -> None:
        tenure.expected, tenure.reading = None, True
        self._settles.start(tenure.place, start.offset)
        self._committer.hold(tenure.place, start.committed)
        self._watchdog.begin(tenure.place, start.offset)

    def _take(self, tenure: Tenure, records: Sequence[ConsumedRecord]) -> None:
        start = tenure.expected
        if start is not None:
            if not is_same_log(start, records):
                self._stop(tenure, "topic_recreated")
                return
            self._begin(tenure, start)
            records = [each for each in records if each.offset >= start.offset]
        if records:
            self._watchdog.offered(tenure.place, records)
            self._settles.offer(tenure.place, records)

    def _stop(self, tenure: Tenure, code: str, offset: int | None = None) -> None:
        """Read it no more; the others go on."""
        tenure.stopped = code
        tenure.expected = None
        self._transport.pause([tenure.place])
        place = {"topic": tenure.place.topic, "partition": tenure.place.partition, "offset": offset}
        log.error("worker.partition_stopped", group=self._group, **place, code=code, hint=HINTS[code])
        if code == "not_initialized" and all(each.stopped == code for each in self.tenures.values()):
            msg = f"nothing says where group {self._group!r} begins; {HINTS[code]}"
            raise ConfigError(msg)

    def _cannot_read(self, tenure: Tenure, offset: int | None) -> None:
        start = tenure.expected
        if start is None:
            self._stop(tenure, "batch_unreadable", offset)
        else:  # of what is settled: it proves nothing, and nothing of it is needed
            self._transport.seek(tenure.place, start.offset)
            self._begin(tenure, start)

    async def _bear(self, exc: TransportError, asked: Mapping[Place, Tenure]) -> None:
        """Mend what a failed poll tells, or raise; of a tenure that ended meanwhile it tells nothing."""
        ours = [place for place in exc.places & self.tenures.keys() if self.tenures[place] is asked.get(place)]
        if exc.code == "offset_out_of_range":  # expired or cut off while we read: the adoption says which
            for place in ours:
                self._renew(place)
        elif exc.code == "batch_unreadable":
            for place in ours:
                self._cannot_read(self.tenures[place], exc.offset)
        elif exc.code == "refused":
            self.refused = True
        elif ours or not exc.places:
            # `offset_missing`: Kafka has lost the group's offsets; ours are committed on the way out.
            raise exc
        await asyncio.sleep(FAILED_S)
