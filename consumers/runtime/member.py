"""A member of a consumer group: claims partitions, reads them, commits offsets, and leaves.

Records go to the `Processor`. A partition passes through these states:

    assigned ──▶ claimed ──▶ compared ──▶ reading ──▶ draining ──▶ forgotten
                    │            │           │
                    └────────────┴───────────┴──▶ stopped, until an operator acts

- Assigned: the rebalance listener gives the partition a new generation. It does nothing else, because the client
  returns records before the listener has ended: a seek in `on_partitions_assigned` ran after 40 of 74 records.
- Claimed: a task claims the partition in PostgreSQL, which fences its former owner, and decides by progress and the
  bounds of the log where reading starts (`decide_start`). The start of a new partition is stored as progress.
- Compared: the record before that offset is read first. If its event id is not the one settled last, the topic was
  recreated or truncated.
- Reading: records are offered to the processor. A partition whose window is full is left out of the poll; a halted one
  (nothing is settled until an operator acts) is paused. One that another process has claimed is claimed again.
- Draining: a rebalance or a stop revokes the partition. It is ours until records in flight are settled and committed.

Only one task polls, seeks, pauses and resumes, and it is never cancelled inside a poll (see `transport`). A batch that
was fetched for an earlier generation of its partition is dropped.

PostgreSQL has the authoritative progress; the group's offsets in Kafka only follow it and are never read, since a
restored database is behind them. They are committed only for partitions that are ours at that moment, since the broker
accepts the commit of a former owner, which would rewind the new one.
"""

import asyncio
import contextlib
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bridge.errors import ConfigError, TransientError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.runtime.backoff import backoff_s
from bridge.runtime.failpoints import hit
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.offset_commits import OffsetCommits
from consumers.runtime.processor import Processor
from consumers.runtime.start_positions import Start, StartPolicy, Stopped, decide_start, hint, is_same_log
from consumers.runtime.transport import Bounds, GroupTransport, TransportError

# Seconds of one poll without records: how late a halt, a rebalance or the stop is noticed.
POLL_S = 0.1
# The same while a partition's window is full or it is being claimed, which may end within milliseconds.
SHORT_POLL_S = 0.01
# Seconds to wait after a failed poll, to avoid a busy loop.
FAILED_POLL_S = 0.25

# Seconds between two attempts at a claim.
CLAIM_RETRY_FIRST_S = 0.2
CLAIM_RETRY_MAX_S = 10.0
# Seconds; right after a failover, a new leader may report an end of the log below what consumers have read.
BEYOND_END_LOOKS = 10
BEYOND_END_S = 1.0

# Seconds between commits, which show the group's lag in Kafka. A late one loses nothing, as PostgreSQL has the
# progress.
COMMIT_PERIOD_S = 1.0
# Seconds for a drain to notice its own timeout.
DRAIN_MARGIN_S = 1.0

WATCH_PERIOD_S = 1.0
# Seconds without a run of the watch after which the event loop counts as blocked.
LOOP_LATE_S = 10.0

_Sleep = Callable[[float], Awaitable[None]]
_Response = TypeVar("_Response")


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Time limits of the watch."""

    look_s: float = 5.0  # between two requests for the ends of the logs
    # Without any response for this long, the client is replaced; above the session timeout, so that little is lost.
    silent_s: float = 60.0
    # The same for one partition. Usually it has no leader, and a new client would not help; but the connection to its
    # leader may be dead, and aiokafka keeps such a connection for long.
    partly_silent_s: float = 300.0
    join_s: float = 180.0  # the same for a join that does not end; above the rebalance timeout
    poll_s: float = 60.0  # without a poll for this long, the process is not live; far above any poll's duration


LIMITS = WatchLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """The parts shared by all members of this process."""

    name: str  # id of the group
    consumer: str  # its name for `drx-consumer`, for hints
    processor: Processor  # processes the records; outlives the members
    metrics: ConsumerMetrics
    policy: StartPolicy  # start of a partition that the group has never read
    begun: Collection[str] = ()  # topics in which the group has an offset
    drain_s: float = 30.0  # seconds for records in flight at a stop or rebalance; well below the rebalance timeout
    limits: WatchLimits = LIMITS
    sleep: _Sleep = asyncio.sleep  # between two attempts at a claim
    clock: Callable[[], float] = time.monotonic


class PartitionLag:
    """The lag of one partition, in offsets and time; all records below `next_offset` are settled."""

    def __init__(self, offset: int) -> None:
        self.next_offset = self._offered_to = offset
        self._behind_at: float | None = None
        # First offset and timestamp of each batch that was offered and is not settled.
        self._stamps: deque[tuple[int, int]] = deque()

    def offered(self, records: Sequence[ConsumedRecord]) -> None:
        """Note records offered to the processor."""
        self._stamps.append((records[0].offset, records[0].timestamp_ms))
        self._offered_to = records[-1].offset + 1

    def observe(self, next_offset: int) -> None:
        """Note the settled offset."""
        self.next_offset = next_offset
        while self._stamps and (self._stamps[1][0] if len(self._stamps) > 1 else self._offered_to) <= next_offset:
            self._stamps.popleft()

    def behind(self, end: int, *, position: int | None, now: float, now_ms: float) -> tuple[int, float]:
        """Return the number of unsettled records, and the age in seconds of the oldest.

        While none of them has been read yet, the age counts from when they were first known. Between the last record
        and `position` there are only transaction markers and aborted transactions.
        """
        settled_to = self.next_offset
        seen = settled_to if position is None or settled_to < self._offered_to else max(settled_to, position)
        records = max(0, end - seen)
        if records == 0:
            self._behind_at = None
            return 0, 0.0
        if self._behind_at is None:
            self._behind_at = now
        age_s = (now_ms - self._stamps[0][1]) / 1000 if self._stamps else now - self._behind_at
        return records, max(0.0, age_s)


@dataclass(slots=True, eq=False)
class AssignedPartition:
    """One generation of a partition: from its assignment until it is revoked or claimed again."""

    tp: TopicPartition
    claim: asyncio.Task[Start | Stopped] | None = None  # the task that claims it
    comparing: Start | None = None  # where to start, until the previous record was compared
    lag: PartitionLag | None = None  # its lag; None before reading starts
    halted: bool = False  # true while paused because nothing can be settled
    stopped: str = ""  # code, once it cannot be read

    @property
    def reading(self) -> bool:
        """Whether its records are offered to the processor."""
        return self.lag is not None

    @property
    def progressing(self) -> bool:
        """Whether it is read and can be settled."""
        return self.reading and not self.halted and not self.stopped

    @property
    def fetched(self) -> bool:
        """Whether its records are fetched from Kafka, to offer or to compare."""
        return (self.reading or self.comparing is not None) and not self.halted and not self.stopped


class Member:
    """One client, from joining the group to leaving it."""

    def __init__(self, transport: GroupTransport, membership: Membership) -> None:
        self.started = False  # true once the client has found the cluster
        self._transport = transport
        self._of = membership
        self._processor, self._metrics, self._group = membership.processor, membership.metrics, membership.name
        self._now = membership.clock
        metrics = membership.metrics
        self._commits = OffsetCommits(transport, metrics=metrics, group=membership.name)
        self._assigned: dict[TopicPartition, AssignedPartition] = {}
        self._draining: set[AssignedPartition] = set()
        self._finishing = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None
        self._refused = False
        self._giving_back = asyncio.Lock()
        now = self._now()
        self._joined = False
        self._joining_since: float | None = now
        self._ticked_at = self._polled_at = now
        self._silent_since: dict[TopicPartition, float] = {}
        metrics.poll_age.labels(metrics.service).set_function(lambda: self._now() - self._polled_at)
        self._partition_gauges = (
            metrics.consumer_lag_records,
            metrics.consumer_lag_seconds,
            metrics.consumer_settled_offset,
        )
        for kind in ("assigned", "revoked", "lost"):
            metrics.consumer_rebalances.labels(metrics.service, kind)

    def live(self) -> str:
        """Return `ok`, or why only a restart can help."""
        now = self._now()
        if now - self._ticked_at > LOOP_LATE_S:
            return "loop_late"
        if now - self._polled_at > self._of.limits.poll_s:
            return "poll_late"
        return "ok"

    def ready(self) -> str:
        """Return `ok` once joined, even without a partition; else the code why a partition is not read."""
        if not self._joined:
            return "joining"
        if self._refused:
            return "refused"
        return next((each.stopped for each in self._assigned.values() if each.stopped), "ok")

    def degraded(self) -> str:
        """Return `ok`, or `degraded` while Kafka does not respond or a partition is not read."""
        if not self._joined or self._silent_since:
            return "degraded"
        return "ok" if all(each.progressing for each in self._assigned.values()) else "degraded"

    def stopped(self, code: str) -> int:
        """Return the number of partitions stopped with this code."""
        return sum(each.stopped == code for each in self._assigned.values())

    async def run(self) -> None:
        """Join and read until `finish`."""
        await self._transport.start(self)
        self.started = True
        for each in (self._commit_periodically(), self._watch()):
            self._background.append(asyncio.create_task(self._noting(each)))
        while not self._finishing.is_set():
            if self._failure is not None:
                raise self._failure
            await self._read()

    def finish(self) -> None:
        """Make `run` return after the poll in progress."""
        self._finishing.set()

    async def leave(self) -> None:
        """Drain, commit and leave the group, after `run` has returned or raised."""
        for each in self._background:
            each.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        try:
            await self._give_back(list(self._assigned))
        finally:
            await self._transport.stop()

    async def _noting(self, work: Coroutine[Any, Any, None]) -> None:
        """Store the failure of a task for the poll task, which raises it."""
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - see above
            self._failure = exc

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Drain and commit; until this returns the partitions are ours."""
        self._joining_since = self._now()
        # The client would swallow an exception raised here.
        await self._noting(self._give_back(tps))

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Give each partition a new generation; the poll task does the rest."""
        self._joining_since = None
        self._joined = True
        self._forget(self._take_away(list(self._assigned)))  # does nothing unless the client omitted `revoked`
        self._assigned = {tp: AssignedPartition(tp) for tp in sorted(tps)}
        self._metrics.consumer_rebalances.labels(self._metrics.service, "assigned").inc()
        log.info("worker.assigned", group=self._group, partitions=len(tps))

    async def _give_back(self, tps: Collection[TopicPartition]) -> None:
        ours = self._take_away(tps)
        outcome = "ok"
        try:
            # A stop waits for the drain of a rebalance, which the client would cancel after a second. A rebalance waits
            # for the drain of a stop, since the partitions are ours until then.
            async with self._giving_back:
                with contextlib.suppress(TimeoutError):  # records still in flight fail at their fence
                    async with asyncio.timeout(self._of.drain_s + DRAIN_MARGIN_S):
                        await self._processor.drain([each.tp for each in ours], timeout_s=self._of.drain_s)
                outcome = await self._commits.commit(lambda: self._settled(ours))
        finally:
            self._forget(ours)
        if ours:
            kind = "lost" if outcome == "not_member" else "revoked"
            self._metrics.consumer_rebalances.labels(self._metrics.service, kind).inc()
            log.info("worker.revoked", group=self._group, partitions=len(ours), code=outcome)

    def _take_away(self, tps: Collection[TopicPartition]) -> list[AssignedPartition]:
        """Stop reading these, so that a batch being fetched is dropped; return the partitions that were assigned."""
        ours = [self._assigned.pop(tp) for tp in list(self._assigned) if tp in tps]
        for each in ours:
            if each.claim is not None:
                each.claim.cancel()
        self._draining.update(ours)
        return ours

    def _forget(self, partitions: Collection[AssignedPartition]) -> None:
        self._draining.difference_update(partitions)
        tps = [each.tp for each in partitions]
        self._processor.forget(tps)
        self._commits.forget(tps)
        for each in partitions:
            for gauge in self._partition_gauges:
                gauge.remove(self._metrics.service, *each.tp)

    def _ours(self) -> list[AssignedPartition]:
        return [*self._assigned.values(), *self._draining]

    async def _read(self) -> None:
        """Poll once, and offer records fetched for the current generation of their partition."""
        self._advance()
        fetched = [each for each in self._assigned.values() if each.fetched]
        asked = {each.tp: each for each in fetched if not each.reading or self._processor.room(each.tp)}
        claiming = any(not each.reading and not each.stopped for each in self._assigned.values())
        short = claiming or len(asked) < len(fetched)
        try:
            found = await self._transport.poll(asked, timeout_s=SHORT_POLL_S if short else POLL_S)
            self._refused = False
        except TransportError as exc:
            await self._poll_failed(exc, asked)
            return
        finally:
            self._polled_at = self._now()
        for tp, records in found.items():
            if self._assigned.get(tp) is asked[tp]:
                self._offer(asked[tp], records)

    def _advance(self) -> None:
        """Move each partition to its next state, if possible."""
        for each in list(self._assigned.values()):
            if each.claim is None:
                self._transport.pause([each.tp])
                each.claim = asyncio.create_task(self._claim(each.tp))
            elif each.reading:
                self._follow(each)
            elif each.claim.done() and each.comparing is None and not each.stopped:
                self._claimed(each, each.claim.result())
        self._metrics.consumer_assigned_partitions.set(len(self._assigned))
        self._metrics.consumer_paused_partitions.set(sum(not each.progressing for each in self._assigned.values()))

    def _follow(self, partition: AssignedPartition) -> None:
        """Apply the processor's state to a partition that is read."""
        halted = self._processor.halted(partition.tp)
        if self._processor.fenced(partition.tp):
            self._claim_again(partition.tp)
        elif partition.halted != halted and not partition.stopped:
            partition.halted = halted
            (self._transport.pause if halted else self._transport.resume)([partition.tp])

    def _claim_again(self, tp: TopicPartition) -> None:
        """Begin a new generation; work in flight of the old one is discarded."""
        self._forget(self._take_away([tp]))
        self._assigned[tp] = AssignedPartition(tp)

    def _claimed(self, partition: AssignedPartition, verdict: Start | Stopped) -> None:
        if isinstance(verdict, Stopped):
            self._stop(partition, verdict.code)
            return
        compares = verdict.expected_id is not None
        self._transport.seek(partition.tp, verdict.offset - compares)
        self._transport.resume([partition.tp])
        if compares:
            partition.comparing = verdict
        else:
            self._start(partition, verdict)

    def _start(self, partition: AssignedPartition, start: Start) -> None:
        partition.comparing = None
        partition.lag = PartitionLag(start.offset)
        where = {**partition.tp._asdict(), "offset": start.offset}
        log.info("worker.reading", group=self._group, **where)
        self._processor.start(partition.tp, start.offset)

    def _offer(self, partition: AssignedPartition, records: Sequence[ConsumedRecord]) -> None:
        start = partition.comparing
        if start is not None:
            if not is_same_log(start, records):
                self._stop(partition, "topic_recreated")
                return
            self._start(partition, start)
            records = [each for each in records if each.offset >= start.offset]
        if records and partition.lag is not None:
            partition.lag.offered(records)
            self._processor.offer(partition.tp, records)

    def _stop(self, partition: AssignedPartition, code: str, offset: int | None = None) -> None:
        """Stop reading this partition; the others continue."""
        partition.stopped = code
        partition.comparing = None
        self._transport.pause([partition.tp])
        where = {**partition.tp._asdict(), "offset": offset}
        advice = hint(code, consumer=self._of.consumer, tp=partition.tp)
        log.error("worker.partition_stopped", group=self._group, **where, code=code, hint=advice)
        if code == "not_initialized" and all(each.stopped == code for each in self._assigned.values()):
            raise ConfigError(f"no setting or offset defines where group {self._group!r} begins; {advice}")

    async def _poll_failed(self, exc: TransportError, asked: Mapping[TopicPartition, AssignedPartition]) -> None:
        """Handle a failed poll, or raise; a failure of a former generation of its partition is ignored."""
        ours = [tp for tp in exc.tps & self._assigned.keys() if self._assigned[tp] is asked.get(tp)]
        if exc.code == "offset_out_of_range":  # expired or truncated during reading: the next claim decides which
            for tp in ours:
                self._claim_again(tp)
        elif exc.code == "batch_unreadable":
            for tp in ours:
                self._batch_unreadable(self._assigned[tp], exc.offset)
        elif exc.code == "refused":
            self._refused = True
        elif ours or not exc.tps:
            # `offset_missing`: Kafka has lost the group's offsets; ours are committed when leaving.
            raise exc
        await asyncio.sleep(FAILED_POLL_S)

    def _batch_unreadable(self, partition: AssignedPartition, offset: int | None) -> None:
        start = partition.comparing
        if start is None:
            self._stop(partition, "batch_unreadable", offset)
        else:  # a batch of settled records, which is not needed
            self._transport.seek(partition.tp, start.offset)
            self._start(partition, start)

    async def _claim(self, tp: TopicPartition) -> Start | Stopped:
        """Claim a partition in PostgreSQL, then query its log; retry both until they succeed."""
        adoption = await self._until_response(lambda: self._processor.adopt(tp))
        hit("between_claim_and_seek")
        for _ in range(BEYOND_END_LOOKS):
            bounds = await self._until_response(lambda: self._transport.bounds([tp]))
            has_begun = tp.topic in self._of.begun
            verdict = decide_start(adoption, bounds=bounds[tp], policy=self._of.policy, has_begun=has_begun)
            if verdict != Stopped("offset_beyond_end"):
                break
            await self._of.sleep(BEYOND_END_S)
        return verdict

    async def _until_response(self, ask: Callable[[], Awaitable[_Response]]) -> _Response:
        failures = 0
        while True:
            try:
                return await ask()
            except (TransientError, TransportError):
                failures += 1
                await self._of.sleep(backoff_s(failures, first_s=CLAIM_RETRY_FIRST_S, max_s=CLAIM_RETRY_MAX_S))

    async def _commit_periodically(self) -> None:
        while not self._finishing.is_set():
            await self._commits.commit(lambda: self._settled(self._ours()))
            await pause(self._finishing, COMMIT_PERIOD_S)

    def _settled(self, partitions: Collection[AssignedPartition]) -> dict[TopicPartition, int]:
        """Return the offset up to which each partition that is read is settled."""
        reading = [(each.tp, self._processor.next_offset(each.tp)) for each in partitions if each.reading]
        return {tp: offset for tp, offset in reading if offset is not None}

    async def _watch(self) -> None:
        """Detect failures that aiokafka does not report: no poll, no response, no progress of a partition."""
        looked_at = -math.inf
        while not self._finishing.is_set():
            self.tick()
            if self._now() - looked_at >= self._of.limits.look_s:
                looked_at = self._now()
                await self._report_lag()
            await pause(self._finishing, WATCH_PERIOD_S)

    def tick(self) -> None:
        """Note that the event loop runs, and the settled offset of each partition."""
        self._ticked_at = now = self._now()
        for each in self._ours():
            next_offset = self._processor.next_offset(each.tp)
            if each.lag is not None and next_offset is not None:
                each.lag.observe(next_offset)
        if self._joining_since is not None and now - self._joining_since > self._of.limits.join_s:
            raise TransportError("no_answer")

    async def _report_lag(self) -> None:
        """Request the ends of the logs, and report the lag."""
        # Also for partitions being claimed, since a claim would never end on a client without responses.
        answers = await self._ask_bounds(self._transport.assigned())
        now = self._now()
        self._note_silence(answers, now)
        for each in self._ours():
            bounds = answers.get(each.tp)  # assigned since the request
            if each.lag is not None and bounds is not None:
                position = self._transport.position(each.tp)
                end = max(bounds.end, self._transport.high_watermark(each.tp) or 0)
                found = each.lag.behind(end, position=position, now=now, now_ms=time.time() * 1000)
                for gauge, value in zip(self._partition_gauges, (*found, each.lag.next_offset), strict=True):
                    gauge.labels(self._metrics.service, *each.tp).set(value)

    def _note_silence(self, answers: Mapping[TopicPartition, Bounds | None], now: float) -> None:
        # Counted from the first request without a response: a process that was paused has lost nothing yet.
        self._silent_since = {at: self._silent_since.get(at, now) for at, bounds in answers.items() if bounds is None}
        since = sorted(self._silent_since.values())
        all_for_s = now - since[-1] if since and len(since) == len(answers) else 0.0
        one_for_s = now - since[0] if since else 0.0
        # A lost session may recover, but not with a password that has been replaced.
        if all_for_s > 0 and self._transport.outdated():
            raise TransportError("no_answer")
        if all_for_s > self._of.limits.silent_s or one_for_s > self._of.limits.partly_silent_s:
            raise TransportError("no_answer")

    async def _ask_bounds(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, Bounds | None]:
        """Send one request per partition: in a joint one, a partition without a leader would delay the response to all.

        While there was no response, only one partition is asked: the client connects ten times a second for each.
        """
        if tps and self._silent_since.keys() == set(tps):
            one = random.choice(list(tps))  # noqa: S311 - not for security; a fixed one may have no leader for long
            if await self._bounds(one) is None:
                return dict.fromkeys(tps)
        return dict(zip(tps, await asyncio.gather(*map(self._bounds, tps)), strict=True))

    async def _bounds(self, tp: TopicPartition) -> Bounds | None:
        try:
            return (await self._transport.bounds([tp]))[tp]
        except TransportError:
            return None
