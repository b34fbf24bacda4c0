"""Keep this process a member of its group: run a `Member` with one Kafka client, and replace it when it fails."""

import asyncio
from collections.abc import Callable
from functools import partial

from bridge.runtime.backoff import backoff_s
from bridge.runtime.lifecycle import first_of, pause
from bridge.runtime.logging import log
from consumers.runtime.member import Member, Membership
from consumers.runtime.start_positions import HINTS
from consumers.runtime.transport import GroupTransport, TransportError

# Seconds between two clients.
CLIENT_RETRY_FIRST_S = 0.5
CLIENT_RETRY_MAX_S = 10.0
# Seconds; if a client failed sooner, the next one waits longer, since each costs the group a rebalance.
STEADY_S = 60.0


class Subscriber:
    """A worker that reads with one member after another; see the module docstring."""

    def __init__(self, membership: Membership, *, open_transport: Callable[[], GroupTransport], address: str) -> None:
        """`open_transport` makes a new client; `address` of the brokers is for logs."""
        self._membership = membership
        self._metrics = metrics = membership.metrics
        self._open_transport = open_transport
        self._address = address
        self._stopping = False
        self._member: Member | None = None
        self._failure = ""
        for code in HINTS:
            metrics.consumer_stopped_partitions.labels(metrics.service, code).set_function(partial(self._stopped, code))

    def live(self) -> str:
        """Return `ok`, or why only a restart can help; an outage of Kafka does not count."""
        return "ok" if self._member is None else self._member.live()

    def ready(self) -> str:
        """Return `ok` once joined, even without a partition; else a code of the failure or the unread partition."""
        if self._stopping:
            return "stopping"
        if self._member is None or not self._member.started:
            return self._failure or "joining"
        return self._member.ready()

    def degraded(self) -> str:
        """Return `ok`, or `degraded` while Kafka does not respond or a partition is not read."""
        return "degraded" if self._member is None else self._member.degraded()

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; then drain, commit and leave the group."""
        failures = 1  # so the wait after a failure at the start is longer than after `STEADY_S`
        while not stop.is_set():
            begun_at = self._membership.clock()
            failure = await self._run_member(stop)
            if failure is None:
                return
            self._failure = failure.code
            log.warning("worker.client_failed", group=self._membership.name, code=failure.code, address=self._address)
            self._metrics.client_rebuilds.inc()
            failures = 1 if self._membership.clock() - begun_at > STEADY_S else failures + 1
            await pause(stop, backoff_s(failures, first_s=CLIENT_RETRY_FIRST_S, max_s=CLIENT_RETRY_MAX_S))

    def _stopped(self, code: str) -> int:
        return 0 if self._member is None else self._member.stopped(code)

    async def _run_member(self, stop: asyncio.Event) -> TransportError | None:
        """Use one client until it fails or `stop` is set; return its failure."""
        member = self._member = Member(self._open_transport(), self._membership)
        reading = asyncio.create_task(member.run())
        try:
            await first_of({reading}, stop)
        finally:
            self._stopping = stop.is_set()
            self._member = None  # from here on there are no polls, and the member's probes are meaningless
            member.finish()
            if not member.started:
                reading.cancel()  # only a poll must not be cancelled, and none was in progress
            await asyncio.wait({reading})
            failure = None if reading.cancelled() else reading.exception()
            await member.leave()
        if failure is None or isinstance(failure, TransportError):
            return failure
        raise failure
