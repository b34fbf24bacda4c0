"""Notice what aiokafka does not tell: that nobody polls, that nobody answers, that a partition makes no progress."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from bridge.kafka.settles import Settles
from bridge.kafka.transport import ConsumedRecord, Place, Transport, TransportError

TICK_S = 1.0
# The loop is alive when it ticks within this.
TICK_MAX_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is too long.

    Attributes:
        look_s: Between two questions where the logs end.
        silent_s: Without an answer to them the client is replaced; above the session time-out, so that little is lost.
        join_s: The same for a join that never ends; above the rebalance time-out.
        poll_s: Without a poll the process is not alive; far above what any poll takes.
        stuck_s: With a record in hand and none settled, likewise; above five tries of 30 s with their pauses.
    """

    look_s: float = 5.0
    silent_s: float = 60.0
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


class Progress:
    """How far one partition is, in offsets and in time.

    Attributes:
        mark: Offset below which everything is settled, as it was seen last.
    """

    def __init__(self, offset: int, now: float) -> None:
        """Start at `offset`."""
        self.mark = self._next = offset
        self._moved_at = now
        self._behind_at: float | None = None
        # First offset and time of what was taken in and is not settled, one entry a batch.
        self._stamps: deque[tuple[int, int]] = deque()

    def offered(self, records: Sequence[ConsumedRecord]) -> None:
        """Note what was taken in."""
        self._stamps.append((records[0].offset, records[0].timestamp_ms))
        self._next = records[-1].offset + 1

    def observe(self, mark: int, *, halted: bool, now: float) -> None:
        """Note what is settled; a halted partition need not move."""
        if halted or mark != self.mark or mark >= self._next:
            self._moved_at = now
        self.mark = mark
        while self._stamps and (self._stamps[1][0] if len(self._stamps) > 1 else self._next) <= mark:
            self._stamps.popleft()

    def stuck_s(self, now: float) -> float:
        """How long records have been in hand without one being settled."""
        return now - self._moved_at

    def lag(self, end: int, *, now: float, now_ms: float) -> tuple[int, float]:
        """Return the records that are not settled, and the age in seconds of the oldest.

        While none of them was read yet, the age is how long it is known that there are some.
        """
        records = max(0, end - self.mark)
        if records == 0:
            self._behind_at = None
            return 0, 0.0
        if self._behind_at is None:
            self._behind_at = now
        age_s = (now_ms - self._stamps[0][1]) / 1000 if self._stamps else now - self._behind_at
        return records, max(0.0, age_s)


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
        self._progress: dict[Place, Progress] = {}
        self._ticked_at = self._polled_at = now()
        self._silent_since: float | None = None
        self._joining_since: float | None = now()
        self.joined = False
        metrics.poll_age.labels(metrics.service).set_function(lambda: self._now() - self._polled_at)

    @property
    def silent(self) -> bool:
        """Whether the last question had no answer."""
        return self._silent_since is not None

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
        self._progress[place] = Progress(offset, self._now())

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
            try:
                async with asyncio.timeout(TICK_S):
                    await stop.wait()
            except TimeoutError:
                continue

    def tick(self) -> None:
        """Note that the loop runs, and how far each partition is.

        Raises:
            TransportError: `no_answer`: a join that never ends.
        """
        self._ticked_at = now = self._now()
        for place, progress in self._progress.items():
            mark = self._settles.mark(place)
            if mark is not None:
                progress.observe(mark, halted=self._settles.halted(place), now=now)
        if self._joining_since is not None and now - self._joining_since > self._limits.join_s:
            raise TransportError("no_answer")

    async def look(self) -> None:
        """Ask where the logs end, and report the lag.

        Raises:
            TransportError: `no_answer`: for too long.
        """
        # Also what is being adopted: a client without answers would have that wait for ever.
        asked = self._transport.assigned()
        try:
            bounds = await self._transport.bounds(asked) if asked else {}
        except TransportError:
            # From the first question on: a process that was frozen has heard nothing, and lost nothing yet.
            self._silent_since = self._silent_since or self._now()
            if self._now() - self._silent_since > self._limits.silent_s:
                raise
            return
        self._silent_since = None
        now = self._now()
        for place, progress in self._progress.items():
            if place in bounds:  # it may have come since
                found = progress.lag(bounds[place].end, now=now, now_ms=time.time() * 1000)
                for gauge, value in zip(self._gauges, (*found, progress.mark), strict=True):
                    gauge.labels(self._metrics.service, *place).set(value)
