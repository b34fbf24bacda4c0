"""The circuit breaker of a consumer's sink: while it is open nothing is tried, and a ping says when it may close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import structlog

from bridge.runtime.backoff import Spread
from consumers.runtime.failure import DELAY_MAX_S, classify, delay_s
from consumers.runtime.metrics import ConsumerMetrics

log = structlog.get_logger()

State = Literal["closed", "open"]

# Failures in a row, of different keys or of pings, that open the circuit. A sink that fails 70 % of all calls fails
# so often in a row once in 4,000 calls: in a brown-out the circuit stays closed, and what fails is tried again.
OPEN_AFTER = 20
# Between pings while the circuit is closed and something fails: a sink that is away is found out within 5 s.
PING_EVERY_S = 0.25
# Before the first ping of an open circuit; up to `DELAY_MAX_S` after many.
PING_FIRST_S = 0.5
# As long as a database may take for a connection (`pool.ACQUIRE_TIMEOUT_S`).
PING_TIMEOUT_S = 10.0
# A record that fails so often in a row is itself at fault if at most `OTHERS_PERCENT` of what else was tried
# meanwhile failed as well: an innocent one is as unlucky once in 10^9.
OWN_FAILURES = 9
OTHERS_PERCENT = 10
# Without anything else to compare with, while the sink's ping passes: at a sink that fails half of all calls, but no
# ping, once in 10^6.
OWN_FAILURES_ALONE = 20
# Keys remembered for having failed: as many as records that a partition may have in hand.
FAILING_MAX = 1024

Ping = Callable[[], Awaitable[None]]
"""Asks the sink whether it works; raises when it does not."""


@dataclass(slots=True)
class _Failing:
    """A key whose first record fails: how often in a row, and what had passed and failed before it."""

    times: int
    passed: int
    failed: int


class Circuit:
    """Counts calls that pass and fail, and pings the sink while something fails; `work` must run for that.

    Attributes:
        failing: The keys whose last attempt has failed.
    """

    def __init__(self, ping: Ping, *, pings_sink: bool, metrics: ConsumerMetrics, group: str, spread: Spread) -> None:
        """Start closed.

        `pings_sink` says that the ping asks the sink of the handlers, not only the database that records are settled
        in. `spread` draws the delays between pings.
        """
        self._ping = ping
        self._pings_sink = pings_sink
        self._group = group
        self._spread = spread
        self._states = {each: metrics.circuit_state.labels(metrics.service, each) for each in get_args(State)}
        self._failures = metrics.consumer_sink_failures.labels(metrics.service)
        self._listeners: list[Callable[[], None]] = []
        self._doubtful = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed.set()
        self.failing: dict[Hashable, _Failing] = {}
        # Calls that passed, and the first failures of keys: how the sink serves those that are not suspected yet.
        self._passed = self._failed = 0
        self._in_a_row = 0
        self._last: Hashable = None
        # Openings and failed pings of an open circuit since a record has passed: the next ping comes the later.
        self._tries = 0
        self._answers = True
        self._show()

    @property
    def closed(self) -> bool:
        """True while the sink may be called."""
        return self._closed.is_set()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the circuit opens or closes."""
        self._listeners.append(listener)

    def passed(self, names: Iterable[Hashable]) -> None:
        """Note that the sink did what it was asked for the keys `names`, in one call."""
        self._in_a_row = self._tries = 0
        self._last = None
        if not self.failing or sum(self.failing.pop(each, None) is None for each in names):
            self._passed += 1
        if not self.closed:
            self._close()

    def failed(self, name: Hashable = None, *, code: str) -> int:
        """Note a systemic failure, of the key `name` or of none in particular; return its failures in a row."""
        self._failures.inc()
        self._doubtful.set()
        failing = self.failing.get(name)
        if failing is None:
            self._failed += 1
            failing = _Failing(0, self._passed, self._failed)
            if name is not None:
                self._remember(name, failing)
        failing.times += 1
        if name is None or name != self._last:  # one record alone opens no circuit
            self._count(code)
        self._last = name
        return failing.times

    def at_fault(self, name: Hashable) -> bool:
        """Whether the record of a key is itself at fault, judged by what else was tried since it began to fail."""
        failing = self.failing.get(name)
        if failing is None:
            return False
        passed = self._passed - failing.passed
        # Others that began to fail since, or that began before and fail still.
        failed = max(self._failed - failing.failed, len(self.failing) - 1)
        # Laplace's rule of succession: a handful of calls that passed say little about a rate.
        if failing.times >= OWN_FAILURES and (failed + 1) * 100 <= (passed + failed + 2) * OTHERS_PERCENT:
            return True
        return self._pings_sink and not failed and failing.times >= OWN_FAILURES_ALONE

    async def there(self) -> bool:
        """Ping the sink; return whether it answered."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._ping()
        except Exception as exc:  # noqa: BLE001 - whatever a ping raises means that the sink is not well
            code = classify(exc).code
            if self._answers:
                log.warning("worker.ping_failed", group=self._group, code=code)
            self._answers = False
            self._tries += not self.closed
            self._last = None
            self.failing.clear()  # no failure counts against a record while the sink is away
            self._count(code)
            return False
        self._answers = True
        return True

    async def work(self) -> None:
        """Ping while something fails, until cancelled."""
        while True:
            await self._doubtful.wait()
            if not self.closed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._delay_s()):
                        await self._closed.wait()
            self._doubtful.clear()
            if not await self.there():
                self._doubtful.set()
            elif not self.closed:
                self._close()
            if self.closed:
                await asyncio.sleep(self._spread(PING_EVERY_S, PING_EVERY_S))

    def _remember(self, name: Hashable, failing: _Failing) -> None:
        if len(self.failing) >= FAILING_MAX:
            del self.failing[next(iter(self.failing))]
        self.failing[name] = failing

    def _count(self, code: str) -> None:
        self._in_a_row += 1
        if self.closed and self._in_a_row >= OPEN_AFTER:
            self._tries += 1
            self._closed.clear()
            self.failing.clear()
            log.warning("worker.circuit_open", group=self._group, code=code)
            self._changed()

    def _close(self) -> None:
        self._in_a_row = 0
        self._closed.set()
        log.info("worker.circuit_closed", group=self._group)
        self._changed()

    def _delay_s(self) -> float:
        return delay_s(max(1, self._tries), spread=self._spread, first_s=PING_FIRST_S, max_s=DELAY_MAX_S)

    def _changed(self) -> None:
        self._show()
        for listener in self._listeners:
            listener()

    def _show(self) -> None:
        for state, gauge in self._states.items():
            gauge.set((state == "closed") == self.closed)
