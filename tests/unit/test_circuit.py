import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import TransientError
from bridge.runtime.backoff import Spread
from consumers.runtime.circuit import OPEN_AFTER, Circuit
from consumers.runtime.metrics import ConsumerMetrics

BRIEF = 0.001


class Sink:
    def __init__(self) -> None:
        self.away = False
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.away:
            raise TransientError("down", systemic=True)


class Key:
    """A key with a record to try."""

    def __init__(self, circuit: Circuit, woken: list["Key"], *, fresh: bool = True, void: bool = False) -> None:
        self._woken = woken
        self.void = void
        circuit.hold(self._wake, fresh=fresh)

    def _wake(self) -> bool:
        self._woken.append(self)
        return not self.void


def a_circuit(sink: Sink | None = None, *, spread: Spread | None = None) -> Circuit:
    metrics = ConsumerMetrics(CollectorRegistry(), service="tests")
    return Circuit((sink or Sink()).ping, metrics=metrics, group="tests", spread=spread or (lambda *_: BRIEF))


def fail(circuit: Circuit, times: int = OPEN_AFTER, *, first: bool = True) -> None:
    for _ in range(times):
        circuit.failed(code="down", first=first)


async def at_work(circuit: Circuit, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(circuit.work())
    async with asyncio.timeout(30):
        while not until():  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(BRIEF)
    task.cancel()


def test_failures_of_several_keys_in_a_row_open_it_and_nothing_else_does() -> None:
    circuit = a_circuit()

    fail(circuit, 10 * OPEN_AFTER, first=False)
    for _ in range(10):
        circuit.passed()
        fail(circuit, OPEN_AFTER - 1)
        fail(circuit, first=False)
    before = circuit.closed
    fail(circuit, 1)

    assert (before, circuit.closed) == (True, False)


async def test_a_ping_that_passes_admits_one_record_and_what_passes_closes_it() -> None:
    sink = Sink()
    sink.away = True
    circuit = a_circuit(sink)
    woken: list[Key] = []
    first, second = Key(circuit, woken), Key(circuit, woken)
    fail(circuit)

    await at_work(circuit, lambda: sink.pings > 3)
    away = circuit.admits(first)
    sink.away = False
    await at_work(circuit, lambda: bool(woken))
    there = [circuit.admits(first), circuit.admits(second)]
    circuit.passed()

    assert (away, there, circuit.admits(second)) == (False, [True, False], True)
    assert woken == [first, second]


@pytest.mark.virtual_time
async def test_the_next_trial_comes_when_the_last_one_is_over() -> None:
    circuit = a_circuit(spread=max)
    woken: list[Key] = []
    first, second = Key(circuit, woken), Key(circuit, woken)
    fail(circuit)
    task = asyncio.create_task(circuit.work())

    await asyncio.sleep(2)
    admitted = circuit.admits(first)
    await asyncio.sleep(10)
    circuit.ended(second)  # of an earlier trial
    await asyncio.sleep(10)
    during = list(woken)
    circuit.ended(first)
    await asyncio.sleep(2)
    task.cancel()

    assert (admitted, during, woken) == (True, [first], [first, second])


async def test_trials_go_first_to_keys_that_have_not_failed_and_past_those_that_are_void() -> None:
    circuit = a_circuit()
    woken: list[Key] = []
    known = Key(circuit, woken, fresh=False)
    void, fresh = Key(circuit, woken, void=True), Key(circuit, woken)
    fail(circuit)

    await at_work(circuit, lambda: fresh in woken)

    assert woken == [void, fresh]
    assert (circuit.admits(known, fresh=False), circuit.admits(fresh)) == (False, True)


async def test_a_ping_closes_it_where_nobody_has_anything_to_try() -> None:
    circuit = a_circuit()
    fail(circuit)

    await at_work(circuit, lambda: circuit.closed)


async def test_who_waits_for_the_circuit_goes_on_when_it_closes() -> None:
    circuit = a_circuit()
    fail(circuit)
    given_up, waiting = (asyncio.create_task(circuit.admitted(name)) for name in ("gone", "waiting"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)

    circuit.passed()
    await waiting

    assert circuit.closed
