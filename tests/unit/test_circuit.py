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
    """A key with a record to try, which waits."""

    def __init__(self, circuit: "Watched", *, fresh: bool = True, may_start: bool = True) -> None:
        self.held, self.fresh, self.may_start = 0, fresh, may_start
        circuit.waiting.append(self)
        circuit.hold(self)

    def resume(self) -> None:
        self.held = 0


class Watched(Circuit):
    """A circuit whose waiters are in a list."""

    def __init__(self, sink: Sink, spread: Spread) -> None:
        self.waiting: list[Key] = []
        metrics = ConsumerMetrics(CollectorRegistry(), service="tests")
        super().__init__(sink.ping, waiters=lambda: self.waiting, metrics=metrics, group="tests", spread=spread)

    @property
    def woken(self) -> list[Key]:
        return [key for key in self.waiting if not key.held]


def a_circuit(sink: Sink | None = None, *, spread: Spread | None = None) -> Watched:
    return Watched(sink or Sink(), spread or (lambda *_: BRIEF))


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
    for _ in range(OPEN_AFTER):
        Key(circuit)

    fail(circuit, 10 * OPEN_AFTER, first=False)
    for _ in range(10):
        circuit.passed()
        fail(circuit, OPEN_AFTER - 1)
        fail(circuit, first=False)
    before = circuit.closed
    fail(circuit, 1)

    assert (before, circuit.closed) == (True, False)


@pytest.mark.parametrize("passes", [False, True])
def test_it_opens_once_all_keys_in_hand_have_failed_and_none_has_passed_since(passes: bool) -> None:  # noqa: FBT001 - a case
    circuit = a_circuit()
    Key(circuit), Key(circuit)
    fail(circuit, 1)
    fail(circuit, OPEN_AFTER, first=False)
    one_of_two = circuit.closed

    if passes:
        circuit.passed()
    fail(circuit, 1)
    fail(circuit, OPEN_AFTER, first=False)

    assert (one_of_two, circuit.closed) == (True, passes)


async def test_a_ping_that_passes_admits_one_record_and_what_passes_closes_it() -> None:
    sink = Sink()
    sink.away = True
    circuit = a_circuit(sink)
    first, second = Key(circuit), Key(circuit)
    fail(circuit)

    await at_work(circuit, lambda: sink.pings > 3)
    away = circuit.admits(first)
    sink.away = False
    await at_work(circuit, lambda: bool(circuit.woken))
    there = [circuit.admits(first), circuit.admits(second)]
    circuit.passed()

    assert (away, there, circuit.admits(second)) == (False, [True, False], True)
    assert circuit.woken == [first, second]


@pytest.mark.virtual_time
async def test_the_next_trial_comes_when_the_last_one_is_over() -> None:
    circuit = a_circuit(spread=max)
    first, second = Key(circuit), Key(circuit)
    fail(circuit)
    task = asyncio.create_task(circuit.work())

    await asyncio.sleep(2)
    admitted = circuit.admits(first)
    await asyncio.sleep(10)
    circuit.ended(second)  # of an earlier trial
    await asyncio.sleep(10)
    during = circuit.woken
    circuit.ended(first)
    await asyncio.sleep(2)
    task.cancel()

    assert (admitted, during, circuit.woken) == (True, [first], [first, second])


async def test_trials_go_first_to_keys_that_have_not_failed_and_past_those_that_are_void() -> None:
    circuit = a_circuit()
    known = Key(circuit, fresh=False)
    _, fresh = Key(circuit, may_start=False), Key(circuit)
    fail(circuit)

    await at_work(circuit, lambda: not fresh.held)

    assert circuit.woken == [fresh]
    assert (circuit.admits(known), circuit.admits(fresh)) == (False, True)


async def test_a_ping_closes_it_where_nobody_has_anything_to_try() -> None:
    circuit = a_circuit()
    fail(circuit)

    await at_work(circuit, lambda: circuit.closed)


async def test_all_that_wait_go_on_when_it_closes_in_the_order_of_waiting() -> None:
    circuit = a_circuit()
    keys = [Key(circuit), Key(circuit, may_start=False), Key(circuit, fresh=False)]
    order = [key.held for key in keys]
    circuit.hold(keys[0])
    fail(circuit)

    circuit.passed()

    assert (order, circuit.woken, circuit.closed) == ([1, 2, 3], keys, True)
