"""The circuit breaker of a consumer's sink: while it is open, one record is tried after each ping that passes.

A failure that every record would meet never parks a record. It is counted here, and several in a row open the circuit.
A ping alone closes it only if no record waits, since a sink may answer pings and refuse everything else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Literal, get_args

from bridge.runtime.backoff import Spread
from bridge.runtime.logging import log
from consumers.runtime.failure import DELAY_MAX_S, classify, delay_s
from consumers.runtime.metrics import ConsumerMetrics

CircuitState = Literal["closed", "open"]

# Failures in a row, of different keys, that open the circuit. A sink that fails 70 % of all calls reaches this once in
# 4,000 calls. So in a partial outage the circuit stays closed, and failed records are retried.
OPEN_AFTER = 20
# Before the first ping of an open circuit; up to `DELAY_MAX_S` after many.
PING_FIRST_S = 0.5
# As long as a database may take for a connection (`pool.ACQUIRE_TIMEOUT_S`).
PING_TIMEOUT_S = 10.0

Ping = Callable[[], Awaitable[None]]
"""Checks the sink; raises if it does not work."""


class Circuit:
    """Counts calls that pass and fail; `work` must run, or an open circuit stays open."""

    def __init__(self, ping: Ping, *, metrics: ConsumerMetrics, group: str, spread: Spread) -> None:
        """Start closed; `spread` draws the delays between pings."""
        self.passes = 0  # successful calls so far
        self._ping = ping
        self._group = group
        self._spread = spread
        self._states = {each: metrics.circuit_state.labels(metrics.service, each) for each in get_args(CircuitState)}
        self._failures = metrics.consumer_sink_failures
        self._opened, self._closed, self._admits = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._closed.set()
        self._admits.set()
        self._in_a_row = 0
        self._last: Hashable = None
        # A ping has passed, and no record was tried since.
        self._trial = False
        # Pings since a record has passed: the next comes the later.
        self._tries = 0
        self._answers = True
        self._changed()

    @property
    def closed(self) -> bool:
        """True while the sink may be called."""
        return self._closed.is_set()

    @property
    def halts(self) -> bool:
        """True while no record may be tried."""
        return not (self.closed or self._trial)

    async def admitted(self) -> None:
        """Return when the caller may try a record."""
        while not self.admits():
            await self._admits.wait()

    def admits(self) -> bool:
        """Whether the caller may try a record now; an open circuit admits one after each ping that passed."""
        admitted = not self.halts
        if self._trial:
            self._trial = False
            self._changed()
        return admitted

    def passed(self) -> None:
        """Note a successful call."""
        self.passes += 1
        self._in_a_row = self._tries = 0
        self._last = None
        if not self.closed:
            self._close()

    def failed(self, name: Hashable = None, *, code: str) -> None:
        """Note a failure that other records would meet too, with the key `name` if known."""
        self._failures.inc()
        if name is None or name != self._last:  # one record alone opens no circuit
            self._in_a_row += 1
        self._last = name
        if self.closed and self._in_a_row >= OPEN_AFTER:
            self._closed.clear()
            self._opened.set()
            log.warning("worker.circuit_open", group=self._group, code=code)
            self._changed()

    async def there(self) -> bool:
        """Ping the sink; return whether it answered."""
        try:
            async with asyncio.timeout(PING_TIMEOUT_S):
                await self._ping()
        except Exception as exc:  # noqa: BLE001 - whatever a ping raises means that the sink is not well
            if self._answers:
                log.warning("worker.ping_failed", group=self._group, code=classify(exc).code)
            self._answers = False
        else:
            self._answers = True
        return self._answers

    async def work(self) -> None:
        """Ping while it is open, until cancelled."""
        while True:
            await self._opened.wait()
            self._tries += 1
            due_s = delay_s(self._tries, spread=self._spread, first_s=PING_FIRST_S, max_s=DELAY_MAX_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await self._closed.wait()
            nothing_to_try = self._trial
            self.admits()
            if self.closed or not await self.there() or self.closed:
                continue
            if nothing_to_try:
                self._close()
            else:
                self._trial = True
                self._changed()

    def _close(self) -> None:
        self._in_a_row = 0
        self._trial = False
        self._opened.clear()
        self._closed.set()
        log.info("worker.circuit_closed", group=self._group)
        self._changed()

    def _changed(self) -> None:
        if self.halts:
            self._admits.clear()
        else:
            self._admits.set()
        for state, gauge in self._states.items():
            gauge.set((state == "closed") == self.closed)
