"""Keep a working member of the group at hand: join, replace the client when it fails, and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram

from bridge.errors import ConfigError, TransientError
from bridge.kafka.transport import Bounds, ConsumedRecord, Place, Transport, TransportError
from bridge.runtime.failpoints import BETWEEN_CLAIM_AND_SEEK, hit
from bridge.runtime.lifecycle import first_of, pause
from consumers.postgres.text import stored_text


class Adoption(NamedTuple):
    """Where a claimed partition goes on; both None when nothing was ever settled there.

    Attributes:
        next_offset: Everything below is settled.
        last_event_id: `ce_id` of the record before `next_offset`; None when it is not known.
    """

    next_offset: int | None
    last_event_id: str | None


class Settles(Protocol):
    """What becomes of records; a place is adopted, started, offered records, and at last forgotten."""

    async def adopt(self, place: Place, generation: int) -> Adoption:
        """Claim a partition and whatever was known of it before is void, also its being `fenced`.

        Raises:
            TransientError: Not now; it is asked again.
        """

    def start(self, place: Place, offset: int) -> None:
        """Expect records from `offset` on."""

    def offer(self, place: Place, records: Sequence[ConsumedRecord]) -> None:
        """Take them all, in order."""

    def room(self, place: Place) -> bool:
        """Whether more may be offered now."""

    def halted(self, place: Place) -> bool:
        """Whether nothing of it can be settled for long; its records are not even fetched then."""

    def fenced(self, place: Place) -> bool:
        """Whether a late claim of another overtook ours: it is forgotten and adopted again under a new generation."""

    async def drain(self, places: Collection[Place], *, timeout_s: float) -> None:
        """Start no new record and return when those in flight are settled, or given up; may be asked twice at once."""

    def forget(self, places: Collection[Place]) -> None:
        """Drop all that is known of partitions that are not ours any more; unknown ones are no fault."""

    def mark(self, place: Place) -> int | None:
        """Return the offset below which everything is settled; None before `start`."""

    def activity(self) -> int:
        """Return a number that moves whenever something of any place is tried, settled or released.

        Of any: a partition may wait its turn for long while slow handlers have others in hand.
        """

    async def run(self, stop: asyncio.Event) -> None:
        """Settle what is offered until `stop` is set; raise only what the process cannot outlive."""


class PartitionLag:
    """How far one partition is, in offsets and in time.

    Attributes:
        mark: Offset below which everything is settled, as it was seen last.
    """

    def __init__(self, offset: int, now: float) -> None:
        """Start at `offset`."""
        self.mark = self._next = offset
        self._moved_at = now
        self._activity = 0
        self._behind_at: float | None = None
        # First offset and time of what was taken in and is not settled, one entry a batch.
        self._stamps: deque[tuple[int, int]] = deque()

    def offered(self, records: Sequence[ConsumedRecord]) -> None:
        """Note what was taken in."""
        self._stamps.append((records[0].offset, records[0].timestamp_ms))
        self._next = records[-1].offset + 1

    def observe(self, mark: int, *, activity: int, halted: bool, now: float) -> None:
        """Note what is settled and how much was done; a halted partition need not move."""
        if halted or mark != self.mark or activity != self._activity or mark >= self._next:
            self._moved_at = now
        self.mark, self._activity = mark, activity
        while self._stamps and (self._stamps[1][0] if len(self._stamps) > 1 else self._next) <= mark:
            self._stamps.popleft()

    def stuck_s(self, now: float) -> float:
        """How long records have been in hand without anything being done about one."""
        return now - self._moved_at

    def lag(self, end: int, *, position: int | None, now: float, now_ms: float) -> tuple[int, float]:
        """Return the records that are not settled, and the age in seconds of the oldest.

        While none of them was read yet, the age is how long it is known that there are some. Up to `position`, nothing
        has come that was not taken in: markers of transactions, and what those have taken back, are no records.
        """
        seen = self.mark if position is None or self.mark < self._next else max(self.mark, position)
        records = max(0, end - seen)
        if records == 0:
            self._behind_at = None
            return 0, 0.0
        if self._behind_at is None:
            self._behind_at = now
        age_s = (now_ms - self._stamps[0][1]) / 1000 if self._stamps else now - self._behind_at
        return records, max(0.0, age_s)


StartPolicy = Literal["none", "earliest", "latest"]

# The end that a new leader tells right after a failover may lie behind what consumers have read already.
BEYOND_END_LOOKS = 10
BEYOND_END_S = 1.0
CLAIM_RETRY_FIRST_S = 0.2
CLAIM_RETRY_MAX_S = 10.0

_INIT = "drx-consumer init NAME --from earliest|latest|<time>"
HINTS = {
    "not_initialized": _INIT,
    "offset_expired": f"records were deleted before they were settled; to go on without them: {_INIT}",
    "offset_beyond_end": f"the topic is not what it was; to begin anew: {_INIT}",
    "batch_unreadable": "a batch is corrupt; let another replica lead, or go on behind it: runbook PartitionStopped",
    "topic_recreated": f"the topic is not what it was; to begin anew: {_INIT}",
}

Sleep = Callable[[float], Awaitable[None]]
Answer = TypeVar("Answer")


class Start(NamedTuple):
    """Where to go on.

    Attributes:
        expected_id: `stored_text` of the `ce_id` that the record before `offset` must have; None when there is nothing
            to compare.
        committed: The group's offset in Kafka, below which no commit may go.
    """

    offset: int
    expected_id: str | None
    committed: int | None


class Stopped(NamedTuple):
    """Why a partition is not read.

    Codes: `not_initialized` (nobody has said where to begin), `offset_expired` (records were deleted before they were
    settled), `offset_beyond_end` and `topic_recreated` (the log is another one, or was cut off), `batch_unreadable`
    (the next batch is corrupt).
    """

    code: str


@dataclass(slots=True, eq=False)
class Tenure:
    """One partition from the moment it is ours until it is taken, or must be adopted anew.

    Attributes:
        generation: Another one each time, so that what belongs to an earlier tenure can be told.
        claim: The task that finds out where to go on, once it was asked for.
        expected: What the record before the first one must be, until that was seen.
        reading: True from then on.
        halted: True while nothing of it can be settled, and it is not read for that.
        stopped: Code, once it is certain that it cannot be read.
    """

    place: Place
    generation: int
    claim: asyncio.Task[Start | Stopped] | None = None
    expected: Start | None = None
    reading: bool = False
    halted: bool = False
    stopped: str = ""

    def end(self) -> None:
        """Give the claim up, if it is still out."""
        if self.claim is not None:
            self.claim.cancel()


def judge(
    adoption: Adoption,
    *,
    committed: int | None,
    bounds: Bounds,
    policy: StartPolicy,
) -> Start | Stopped:
    """Decide where a partition goes on: as settled, else as committed, else as the policy says; never past a gap."""
    offset = committed if adoption.next_offset is None else adoption.next_offset
    if offset is None:
        if policy == "none":
            return Stopped("not_initialized")
        return Start(bounds.start if policy == "earliest" else bounds.end, None, committed)
    if offset < bounds.start:
        return Stopped("offset_expired")
    if offset > bounds.end:
        return Stopped("offset_beyond_end")
    # What lies before the start cannot be read any more, and nothing lies before it that could have been missed.
    return Start(offset, adoption.last_event_id if offset > bounds.start else None, committed)


def is_same_log(start: Start, records: Sequence[ConsumedRecord]) -> bool:
    """Whether the records, read from the one before `start`, begin with the one that was settled last.

    A gap there proves nothing: compaction and the markers of transactions leave some.
    """
    first = records[0]
    return first.offset != start.offset - 1 or stored_text(first.header("ce_id")) == start.expected_id


class Adopter:
    """Claims partitions, for as long as it takes."""

    def __init__(
        self, *, transport: Transport, settles: Settles, policy: StartPolicy, sleep: Sleep = asyncio.sleep
    ) -> None:
        """Ask `settles` for what is settled and `transport` for what is there."""
        self._transport = transport
        self._settles = settles
        self._policy = policy
        self._sleep = sleep

    async def adopt(self, place: Place, generation: int) -> Start | Stopped:
        """Claim a partition, then look at its log; both are asked again until they answer."""

        async def claim() -> Adoption:
            return await self._settles.adopt(place, generation)

        adoption = await self._until_answered(claim)
        hit(BETWEEN_CLAIM_AND_SEEK)
        for _ in range(BEYOND_END_LOOKS):
            bounds, committed = await self._until_answered(lambda: self._look(place))
            verdict = judge(adoption, committed=committed, bounds=bounds, policy=self._policy)
            if verdict != Stopped("offset_beyond_end"):
                break
            await self._sleep(BEYOND_END_S)
        return verdict

    async def _look(self, place: Place) -> tuple[Bounds, int | None]:
        committed = await self._transport.committed([place])
        bounds = await self._transport.bounds([place])
        return bounds[place], committed[place]

    async def _until_answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        delay_s = CLAIM_RETRY_FIRST_S
        while True:
            try:
                return await ask()
            except (TransientError, TransportError):
                await self._sleep(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - spreads load, guards nothing
            delay_s = min(delay_s * 2, CLAIM_RETRY_MAX_S)


log = structlog.get_logger()

# Others see our lag by these commits, and nothing is lost by one that is late: PostgreSQL knows what is settled.
PERIOD_S = 1.0
# For the last commit, also when another has to end first.
COMMIT_S = 5.0


class Committer:
    """Commits marks; the offsets in Kafka follow them and are never the first to know."""

    def __init__(
        self, *, transport: Transport, mark: Callable[[Place], int | None], group: str, duration: Histogram
    ) -> None:
        """Commit what `mark` says of the partitions that are held; `duration` has its labels."""
        self._transport = transport
        self._mark = mark
        self._group = group
        self._duration = duration
        self._kept: dict[Place, int] = {}
        self._lock = asyncio.Lock()
        self._outcome = "ok"

    def hold(self, place: Place, committed: int | None) -> None:
        """Begin to commit for a partition of which Kafka has `committed`."""
        self._kept[place] = -1 if committed is None else committed

    def let_go(self, places: Collection[Place]) -> None:
        """Commit no more for these: they are not ours."""
        for place in places:
            self._kept.pop(place, None)

    async def run(self, stop: asyncio.Event) -> None:
        """Commit once a period until `stop` is set."""
        while not stop.is_set():
            await self.commit(list(self._kept))
            await pause(stop, PERIOD_S)

    async def commit(self, places: Collection[Place]) -> str:
        """Commit what is new of `places`; return `ok` or the code of a failure, after which the next one makes good.

        An old owner's commit is accepted by the broker and would rewind the new one's, so marks and holdings are looked
        at in the step that sends.
        """
        try:
            async with asyncio.timeout(COMMIT_S), self._lock:
                offsets = {place: mark for place in places if (mark := self._news(place)) is not None}
                outcome = await self._send(offsets) if offsets else "ok"
        except TimeoutError:
            outcome = "no_answer"
        if outcome not in {"ok", self._outcome}:  # once, not once a period
            log.warning("worker.commit_failed", group=self._group, code=outcome)
        self._outcome = outcome
        return outcome

    async def _send(self, offsets: Mapping[Place, int]) -> str:
        begun = asyncio.get_running_loop().time()
        try:
            await self._transport.commit(offsets)
        except TransportError as exc:
            return exc.code
        finally:
            self._duration.observe(asyncio.get_running_loop().time() - begun)
        self._kept.update({place: offset for place, offset in offsets.items() if place in self._kept})
        return "ok"

    def _news(self, place: Place) -> int | None:
        kept = self._kept.get(place)
        mark = self._mark(place) if kept is not None else None
        return mark if mark is not None and kept is not None and mark > kept else None


TICK_S = 1.0
# The loop is alive when it ticks within this.
TICK_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is too long.

    Attributes:
        look_s: Between two questions where the logs end.
        silent_s: Without any answer to them the client is replaced; above the session time-out, so that little is lost.
        partly_silent_s: Without an answer for one partition, likewise. As a rule it has no leader, and another client
            would know no more; but the path to its leader may be dead, and aiokafka holds on to that for long.
        join_s: The same for a join that never ends; above the rebalance time-out.
        poll_s: Without a poll the process is not alive; far above what any poll takes.
        stuck_s: With a record in hand and none so much as tried, likewise; above a handler's time-out and a pause. What
            is tried in vain, be it for days, is no reason for a restart, which would help nothing.
    """

    look_s: float = 5.0
    silent_s: float = 60.0
    partly_silent_s: float = 300.0
    join_s: float = 180.0
    poll_s: float = 60.0
    stuck_s: float = 900.0


LIMITS = Limits()


class SubscriberMetrics(Protocol):
    """What is reported about reading."""

    service: str
    consumer_lag_records: Gauge
    consumer_lag_seconds: Gauge
    consumer_settled_offset: Gauge
    consumer_rebalances: Counter
    consumer_assigned_partitions: Gauge
    consumer_paused_partitions: Gauge
    consumer_stopped_partitions: Gauge
    commit: Histogram
    client_rebuilds: Counter
    poll_age: Gauge


class Watchdog:
    """Watches one client; what it raises from `run` says that the client must be replaced.

    Attributes:
        joined: True once the group has given us our part, which may be none.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        settles: Settles,
        metrics: SubscriberMetrics,
        limits: Limits = LIMITS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Watch `transport`, whose join begins now."""
        self._transport = transport
        self._settles = settles
        self._metrics = metrics
        self._gauges = (metrics.consumer_lag_records, metrics.consumer_lag_seconds, metrics.consumer_settled_offset)
        self._limits = limits
        self._now = now
        self._progress: dict[Place, PartitionLag] = {}
        self._ticked_at = self._polled_at = now()
        self._silent: dict[Place, float] = {}
        self._joining_since: float | None = now()
        self.joined = False
        metrics.poll_age.labels(metrics.service).set_function(lambda: self._now() - self._polled_at)

    @property
    def silent(self) -> bool:
        """Whether the last question had no answer for some partition."""
        return bool(self._silent)

    def left(self) -> None:
        """Note that a rebalance has begun."""
        self._joining_since = self._now()

    def given(self) -> None:
        """Note that it has ended."""
        self._joining_since = None
        self.joined = True

    def polled(self) -> None:
        """Note that a poll has returned."""
        self._polled_at = self._now()

    def begin(self, place: Place, offset: int) -> None:
        """Watch a partition."""
        self._progress[place] = PartitionLag(offset, self._now())

    def offered(self, place: Place, records: Sequence[ConsumedRecord]) -> None:
        """Note what was taken in."""
        self._progress[place].offered(records)

    def end(self, places: Collection[Place]) -> None:
        """Watch these no more, and take their series away."""
        for place in places:
            self._progress.pop(place, None)
            for gauge in self._gauges:
                gauge.remove(self._metrics.service, *place)

    def live(self) -> str:
        """Return `ok`, or a word for why only a restart can help."""
        now = self._now()
        if now - self._ticked_at > TICK_MAX_S:
            return "loop_late"
        if now - self._polled_at > self._limits.poll_s:
            return "poll_late"
        if any(each.stuck_s(now) > self._limits.stuck_s for each in self._progress.values()):
            return "partition_stuck"
        return "ok"

    async def run(self, stop: asyncio.Event) -> None:
        """Look, until `stop` is set.

        Raises:
            TransportError: `no_answer`: the client will not come back by itself.
        """
        looked_at = -math.inf
        while not stop.is_set():
            self.tick()
            if self._now() - looked_at >= self._limits.look_s:
                looked_at = self._now()
                await self.look()
            await pause(stop, TICK_S)

    def tick(self) -> None:
        """Note that the loop runs, and how far each partition is.

        Raises:
            TransportError: `no_answer`: a join that never ends.
        """
        self._ticked_at = now = self._now()
        activity = self._settles.activity()
        for place, progress in self._progress.items():
            mark = self._settles.mark(place)
            if mark is not None:
                halted = self._settles.halted(place)
                progress.observe(mark, activity=activity, halted=halted, now=now)
        if self._joining_since is not None and now - self._joining_since > self._limits.join_s:
            raise TransportError("no_answer")

    async def look(self) -> None:
        """Ask where the logs end, and report the lag.

        Raises:
            TransportError: `no_answer`: for too long.
        """
        # Also what is being adopted: a client without answers would have that wait for ever. Each by itself, since one
        # without a leader would leave all that are asked for with it without an answer.
        asked = self._transport.assigned()
        answers = dict(zip(asked, await asyncio.gather(*map(self._bounds, asked)), strict=True))
        now = self._now()
        # From the first question on: a process that was frozen has heard nothing, and lost nothing yet.
        self._silent = {place: self._silent.get(place, now) for place, bounds in answers.items() if bounds is None}
        since = sorted(self._silent.values())
        all_for_s = now - since[-1] if since and len(since) == len(asked) else 0.0
        one_for_s = now - since[0] if since else 0.0
        if all_for_s > self._limits.silent_s or one_for_s > self._limits.partly_silent_s:
            raise TransportError("no_answer")
        for place, progress in self._progress.items():
            bounds = answers.get(place)  # it may have come since
            if bounds is not None:
                position = self._transport.position(place)
                found = progress.lag(bounds.end, position=position, now=now, now_ms=time.time() * 1000)
                for gauge, value in zip(self._gauges, (*found, progress.mark), strict=True):
                    gauge.labels(self._metrics.service, *place).set(value)

    async def _bounds(self, place: Place) -> Bounds | None:
        try:
            return (await self._transport.bounds([place]))[place]
        except TransportError:
            return None


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


__all__ = ["Adoption", "Settles", "Subscriber"]

log = structlog.get_logger()

CLIENT_RETRY_FIRST_S = 0.5
CLIENT_RETRY_MAX_S = 10.0
# A client that failed sooner has not recovered: the next one waits longer, since each costs the group a rebalance.
STEADY_S = 60.0


class Subscriber:
    """The worker that reads topics for `settles`, whatever becomes of the client."""

    def __init__(
        self,
        *,
        open_transport: Callable[[], Transport],
        settles: Settles,
        metrics: SubscriberMetrics,
        group: str,
        policy: StartPolicy,
        drain_s: float = 30.0,
        limits: Limits = LIMITS,
    ) -> None:
        """Join `group` by new transports; `policy` says where a partition begins that nobody has read yet.

        `drain_s` is for what is in flight at a stop and at a rebalance, so well below the rebalance time-out.
        """
        self._open_transport = open_transport
        self._settles = settles
        self._metrics = metrics
        self._group = group
        self._policy = policy
        self._drain_s = drain_s
        self._limits = limits
        self._generations = itertools.count(1)
        self._stopping = False
        self._membership: Membership | None = None
        self._watchdog: Watchdog | None = None
        metrics.client_rebuilds.labels(metrics.service)
        for code in HINTS:
            metrics.consumer_stopped_partitions.labels(metrics.service, code).set_function(partial(self._stopped, code))

    def live(self) -> str:
        """Return `ok`, or a word for why only a restart can help; an outage of Kafka is no reason."""
        return "ok" if self._watchdog is None else self._watchdog.live()

    def ready(self) -> str:
        """Return `ok` once joined, also without a partition; the code of a partition that was stopped."""
        if self._stopping:
            return "stopping"
        if self._membership is None or self._watchdog is None or not self._watchdog.joined:
            return "joining"
        if self._membership.refused:
            return "refused"
        return next((each.stopped for each in self._membership.tenures.values() if each.stopped), "ok")

    def degraded(self) -> str:
        """Return `ok`, or `degraded` while Kafka does not answer or a partition is not read."""
        if self._membership is None or self._watchdog is None or not self._watchdog.joined or self._watchdog.silent:
            return "degraded"
        tenures = self._membership.tenures.values()
        return "ok" if all(each.reading and not each.halted and not each.stopped for each in tenures) else "degraded"

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; then drain, commit and leave the group.

        Raises:
            ConfigError: Nothing says where the group begins.
        """
        delay_s = CLIENT_RETRY_FIRST_S
        now = asyncio.get_running_loop().time
        while not stop.is_set():
            begun_at = now()
            failure = await self._be_member(stop)
            if failure is None:
                return
            log.warning("worker.client_failed", group=self._group, code=failure.code)
            self._metrics.client_rebuilds.labels(self._metrics.service).inc()
            delay_s = CLIENT_RETRY_FIRST_S if now() - begun_at > STEADY_S else min(delay_s * 2, CLIENT_RETRY_MAX_S)
            await pause(stop, random.uniform(delay_s / 2, delay_s))  # noqa: S311 - spreads load

    def _stopped(self, code: str) -> int:
        tenures = {} if self._membership is None else self._membership.tenures
        return sum(each.stopped == code for each in tenures.values())

    async def _be_member(self, stop: asyncio.Event) -> TransportError | None:
        """Use one client until it fails or `stop` is set; return its failure."""
        membership, watchdog = self._join()
        self._membership, self._watchdog = membership, watchdog
        reading = asyncio.create_task(membership.run())
        try:
            await first_of({reading}, stop)
        finally:
            self._stopping = stop.is_set()
            self._watchdog = None  # its word counts while it is fed
            membership.finish()
            if not membership.started:
                reading.cancel()  # which harms a poll only
            await asyncio.wait({reading})
            failure = None if reading.cancelled() else reading.exception()
            await membership.leave()
            self._membership = None
        if failure is None or isinstance(failure, TransportError):
            return failure
        raise failure

    def _join(self) -> tuple[Membership, Watchdog]:
        transport = self._open_transport()
        watchdog = Watchdog(transport=transport, settles=self._settles, metrics=self._metrics, limits=self._limits)
        membership = Membership(
            transport=transport,
            settles=self._settles,
            adopter=Adopter(transport=transport, settles=self._settles, policy=self._policy),
            committer=Committer(
                transport=transport,
                mark=self._settles.mark,
                group=self._group,
                duration=self._metrics.commit.labels(self._metrics.service),
            ),
            watchdog=watchdog,
            metrics=self._metrics,
            group=self._group,
            generations=self._generations,
            drain_s=self._drain_s,
        )
        return membership, watchdog
