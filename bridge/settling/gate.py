"""The circuit of the sink in a running process: tells everyone when it changes, and when a probe is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import get_args

import structlog
from prometheus_client import Gauge

from bridge.settling.circuit import Circuit, State

log = structlog.get_logger()


class Gate:
    """Asks and tells the circuit with the loop's clock."""

    def __init__(self, circuit: Circuit, *, states: Gauge, service: str) -> None:
        """Report into `states` (labels `service`, `state`)."""
        self._circuit = circuit
        self._states = {state: states.labels(service, state) for state in get_args(State)}
        self._listeners: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._show()

    @property
    def closed(self) -> bool:
        """True while the sink may be called freely."""
        return self._circuit.closed

    def suspects(self, key: Hashable) -> bool:
        """Whether this key failed and has not passed since."""
        return self._circuit.suspects(key)

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when something may be possible that was not."""
        self._listeners.append(listener)

    def probe(self) -> bool:
        """Ask for the one probe."""
        granted = self._circuit.probe(_now())
        if granted:
            self._show()
        return granted

    def passed(self, *keys: Hashable) -> None:
        """Note that the sink did what it was asked for `keys`, or the ledger, which speaks for none."""
        before = self._circuit.state
        self._circuit.passed(*keys)
        self._changed(before)

    def failed(self, key: Hashable = None, *, code: str) -> bool:
        """Note a systemic failure; True when it is the record's own."""
        before = self._circuit.state
        own = self._circuit.failed(key, now=_now())
        self._changed(before, code)
        return own

    def stopped(self, *, called: bool = True) -> None:
        """Note that a probe, if there is one, ended without word from the sink, which perhaps was not even `called`."""
        before = self._circuit.state
        self._circuit.stopped(now=_now(), called=called)
        self._changed(before)

    def end(self) -> None:
        """Let no timer outlive the process's work."""
        if self._timer is not None:
            self._timer.cancel()

    def _changed(self, before: State, code: str = "") -> None:
        state = self._circuit.state
        if state == before:
            return
        self._show()
        if before == "closed":
            log.warning("worker.circuit_open", code=code)
        elif state == "closed":
            log.info("worker.circuit_closed")
        if state == "open":
            self.end()
            wait_s = self._circuit.wait_s(_now())
            # The loop's clock may run a tick early; a probe refused for that would wait for the next change.
            self._timer = asyncio.get_running_loop().call_later(wait_s + 0.001, self._tell)
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _show(self) -> None:
        for state, gauge in self._states.items():
            gauge.set(state == self._circuit.state)


def _now() -> float:
    return asyncio.get_running_loop().time()
