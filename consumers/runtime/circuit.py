"""The circuit breaker of a consumer's sink: while open, one record is tried after each successful ping.

A failure that any record would have parks none. It is counted here, once per key until a call for that key succeeds: a
sink that keeps refusing a few keys does not stop the others. Failures of several keys in a row open the circuit, or as
many failures if that is all keys in hand. Trials go first to records that have not failed yet, and the first success
closes it. A ping alone closes it only if no record waits, since a sink may respond to pings and refuse everything else.

Who waits for the circuit is noted at the waiter, in the partition that owns it: the circuit asks the partitions of this
process, so that nothing is left of one that is gone.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Literal, Protocol, get_args

from bridge.runtime.backoff import Spread
from bridge.runtime.logging import log
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.retry_policy import DELAY_MAX_S, classify, delay_s

CircuitState = Literal["closed", "open"]

# Failures in a row, of different keys, that open the circuit. A sink that fails 70 % of all calls reaches this once in
# 4,000 calls, so in a partial outage the circuit stays closed and failed records are retried.
OPEN_AFTER = 20
# Seconds before the first ping of an open circuit, and after each trial; up to `DELAY_MAX_S` after many failed pings.
PING_FIRST_S = 0.5
# Seconds; as long as a database may take for a connection (`pool.ACQUIRE_TIMEOUT_S`).
PING_TIMEOUT_S = 10.0

Ping = Callable[[], Awaitable[None]]
"""Checks the sink; raises if it does not work."""


class Waiter(Protocol):
    """What may wait for the circuit: a key, or the driver of a partition."""

    held: int  # its number in the order of waiting; 0 while it does not wait

    @property
    def fresh(self) -> bool:
        """Whether it has not failed yet."""

    @property
    def may_start(self) -> bool:
        """Whether it could use a trial."""

    def resume(self) -> None:
        """End its wait: `admits` should be tried again."""


class Circuit:
    """Counts successful and failed calls; `work` must run, or an open circuit stays open."""

    def __init__(
        self,
        ping: Ping,
        *,
        waiters: Callable[[], Iterable[Waiter]],
        metrics: ConsumerMetrics,
        group: str,
        spread: Spread,
    ) -> None:
        """Initially closed; `waiters` returns all that may wait; `spread` randomises the delays between pings."""
        self.passes = 0  # number of successful calls
        self.closed = True  # while the sink may be called
        self._ping = ping
        self._group = group
        self._spread = spread
        self._states = {each: metrics.circuit_state.labels(metrics.service, each) for each in get_args(CircuitState)}
        self._failures = metrics.consumer_sink_failures
        self._failures_in_a_row = self._keys_in_a_row = 0
        self._ping_succeeds = True
        self._waiters = waiters
        self._numbers = itertools.count(1)
        # A ping succeeded and the trial is not taken yet; it may be only for waiters without a failure.
        self._offered = self._fresh_only = False
        self._tried_by: Waiter | None = None
        self._changed = asyncio.Event()
        self._show()

    def admits(self, who: Waiter) -> bool:
        """Return whether `who` may call the sink; then call `ended`, else `hold`."""
        if self._offered and (who.fresh or not self._fresh_only):
            self._offered, self._tried_by, who.held = False, who, 0
            self._changed.set()
            return True
        return self.closed

    def ended(self, who: Waiter) -> None:
        """Note that the call of `who` has ended, with any result."""
        if self._tried_by is who:
            self._tried_by = None
            self._changed.set()

    def hold(self, who: Waiter) -> None:
        """Resume `who` when `admits` should be tried again: at a trial, or when the circuit closes."""
        who.held = who.held or next(self._numbers)

    def passed(self) -> None:
        """Note a successful call."""
        self.passes += 1
        self._failures_in_a_row = self._keys_in_a_row = 0
        if not self.closed:
            self._close()

    def failed(self, *, code: str, first: bool = True) -> None:
        """Note a failure that other records would have, too; `first` since the key's last success."""
        self._failures.inc()
        self._failures_in_a_row += 1
        self._keys_in_a_row += first
        enough = self._failures_in_a_row >= OPEN_AFTER
        if self.closed and enough and self._keys_in_a_row >= min(OPEN_AFTER, sum(1 for _ in self._waiters())):
            self.closed = False
            log.warning("worker.circuit_open", group=self._group, code=code)
            self._show()

    async def ping_sink(self) -> bool:
        """Ping the sink; return whether it responded."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._ping()
        except Exception as exc:  # noqa: BLE001 - any exception of a ping means that the sink does not work
            if self._ping_succeeds:
                log.warning("worker.ping_failed", group=self._group, code=classify(exc).code)
            self._ping_succeeds = False
        else:
            self._ping_succeeds = True
        return self._ping_succeeds

    async def work(self) -> None:
        """Ping while the circuit is open and offer trials, one after another, until cancelled."""
        failed_pings = 0
        while True:
            await self._until(lambda: not self.closed)
            due_s = delay_s(1 + failed_pings, spread=self._spread, first_s=PING_FIRST_S, max_s=DELAY_MAX_S)
            await self._until(lambda: self.closed, at_most_s=due_s)
            succeeds = self.closed or await self.ping_sink()
            failed_pings = 0 if succeeds else failed_pings + 1
            if self.closed or not succeeds:
                continue
            self._offer()
            # A failed waiter returns within this time.
            await self._until(lambda: not self._offered, at_most_s=self._spread(DELAY_MAX_S, DELAY_MAX_S))
            if self._offered and not self._waiting():
                self._close()
            self._offered = False
            await self._until(lambda: self._tried_by is None, at_most_s=DELAY_MAX_S)

    def _offer(self) -> None:
        self._offered = True
        able = [each for each in self._waiting() if each.may_start]
        first = min(able, key=lambda each: (not each.fresh, each.held), default=None)
        self._fresh_only = first is not None and first.fresh
        if first is not None:
            first.resume()

    def _waiting(self) -> list[Waiter]:
        return [each for each in self._waiters() if each.held]

    async def _until(self, holds: Callable[[], bool], *, at_most_s: float | None = None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()

    def _close(self) -> None:
        self._failures_in_a_row = self._keys_in_a_row = 0
        self.closed, self._offered, self._tried_by = True, False, None
        log.info("worker.circuit_closed", group=self._group)
        self._show()
        for each in sorted(self._waiting(), key=lambda each: (not each.fresh, each.held)):
            each.resume()

    def _show(self) -> None:
        self._changed.set()
        for state, gauge in self._states.items():
            gauge.set((state == "closed") == self.closed)
