"""Notice what aiokafka does not tell: that nobody polls, that nobody answers, that a partition makes no progress."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from bridge.kafka.transport import Bounds, ConsumedRecord, Place, Transport, TransportError
from bridge.runtime.lifecycle import pause
from consumers.runtime.partition_progress import Progress
from consumers.runtime.settles import Settles

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
        self._progress: dict[Place, Progress] = {}
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
