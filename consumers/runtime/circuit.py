"""The circuit breaker of a consumer's sink: while open, one record is tried after each successful ping.

A failure that any record would have parks none. It is counted here, once per key until a call for that key succeeds: a
sink that keeps refusing a few keys does not stop the others. Several in a row open the circuit. Trials go
first to records that have not failed yet, and the first success closes it. A ping alone closes it only if no record
waits, since a sink may respond to pings and refuse everything else.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Literal, get_args

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
Wake = Callable[[], bool]
"""Wakes a waiter for a trial; False if it does not wait any more."""


class Circuit:
    """Counts successful and failed calls; `work` must run, or an open circuit stays open."""

    def __init__(self, ping: Ping, *, metrics: ConsumerMetrics, group: str, spread: Spread) -> None:
        """Initially closed; `spread` randomises the delays between pings."""
        self.passes = 0  # number of successful calls
        self.closed = True  # while the sink may be called
        self._ping = ping
        self._group = group
        self._spread = spread
        self._states = {each: metrics.circuit_state.labels(metrics.service, each) for each in get_args(CircuitState)}
        self._failures = metrics.consumer_sink_failures
        self._consecutive_failures = 0
        self._ping_succeeds = True
        # Waiters for a trial: those without a failure go first.
        self._fresh: deque[Wake] = deque()
        self._failed: deque[Wake] = deque()
        # A ping succeeded and the trial is not taken yet; it may be only for waiters without a failure.
        self._offered = self._fresh_only = False
        self._tried_by: object = None
        self._changed = asyncio.Event()
        self._show()

    def admits(self, who: object, *, fresh: bool = True) -> bool:
        """Return whether `who` may call the sink; then call `ended`, else `hold`. `fresh`: it has not failed yet."""
        if self._offered and (fresh or not self._fresh_only):
            self._offered, self._tried_by = False, who
            self._changed.set()
            return True
        return self.closed

    def ended(self, who: object) -> None:
        """Note that the call of `who` has ended, with any result."""
        if self._tried_by is who:
            self._tried_by = None
            self._changed.set()

    def hold(self, wake: Wake, *, fresh: bool = True) -> None:
        """Call `wake` when `admits` should be tried again: at a trial, or when the circuit closes."""
        (self._fresh if fresh else self._failed).append(wake)

    async def admitted(self, who: object) -> None:
        """Wait until `who` may call the sink."""
        while not self.admits(who):
            woken = asyncio.get_running_loop().create_future()
            self.hold(partial(_resolve, woken))
            await woken

    def passed(self) -> None:
        """Note a successful call."""
        self.passes += 1
        self._consecutive_failures = 0
        if not self.closed:
            self._close()

    def failed(self, *, code: str, first: bool = True) -> None:
        """Note a failure that other records would have, too; only the `first` since a key's last success counts."""
        self._failures.inc()
        self._consecutive_failures += first
        if self.closed and self._consecutive_failures >= OPEN_AFTER:
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
            if self._offered and not (self._fresh or self._failed):
                self._close()
            self._offered = False
            await self._until(lambda: self._tried_by is None, at_most_s=DELAY_MAX_S)

    def _offer(self) -> None:
        self._offered = True
        self._fresh_only = _wake_first(self._fresh)
        if not self._fresh_only:
            _wake_first(self._failed)

    async def _until(self, holds: Callable[[], bool], *, at_most_s: float | None = None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()

    def _close(self) -> None:
        self._consecutive_failures = 0
        self.closed, self._offered, self._tried_by = True, False, None
        log.info("worker.circuit_closed", group=self._group)
        self._show()
        for waiting in (self._fresh, self._failed):
            while _wake_first(waiting):
                pass

    def _show(self) -> None:
        self._changed.set()
        for state, gauge in self._states.items():
            gauge.set((state == "closed") == self.closed)


def _resolve(woken: asyncio.Future[None]) -> bool:
    if woken.done():  # the task that waited was cancelled
        return False
    woken.set_result(None)
    return True


def _wake_first(waiting: deque[Wake]) -> bool:
    """Wake the longest waiter; False if there is none."""
    while waiting:
        if waiting.popleft()():
            return True
    return False
