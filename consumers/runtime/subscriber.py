"""Keep a working member of the group at hand: join, replace the client when it fails, and stop in order."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from functools import partial

import structlog

from bridge.kafka.transport import Transport, TransportError
from bridge.runtime.lifecycle import first_of, pause
from consumers.runtime.adoption import HINTS, Adopter, StartPolicy
from consumers.runtime.committer import Committer
from consumers.runtime.membership import Membership
from consumers.runtime.settles import Adoption, Settles
from consumers.runtime.watchdog import LIMITS, Limits, SubscriberMetrics, Watchdog

__all__ = ["Adoption", "Settles", "Subscriber"]

log = structlog.get_logger()

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 10.0
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
        delay_s = RETRY_FIRST_S
        now = asyncio.get_running_loop().time
        while not stop.is_set():
            begun_at = now()
            failure = await self._be_member(stop)
            if failure is None:
                return
            log.warning("worker.client_failed", group=self._group, code=failure.code)
            self._metrics.client_rebuilds.labels(self._metrics.service).inc()
            delay_s = RETRY_FIRST_S if now() - begun_at > STEADY_S else min(delay_s * 2, RETRY_MAX_S)
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
