from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import TransientError
from consumers.runtime.circuit import FAILING_MAX, OPEN_AFTER, OWN_FAILURES, OWN_FAILURES_ALONE, Circuit
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


def a_circuit(sink: Sink | None = None, *, pings_sink: bool = True) -> Circuit:
    metrics = ConsumerMetrics(CollectorRegistry(), service="tests")
    ping = (sink or Sink()).ping
    return Circuit(ping, pings_sink=pings_sink, metrics=metrics, group="tests", spread=lambda *_: BRIEF)


def fail(circuit: Circuit, *names: object, times: int = 1) -> None:
    for _ in range(times):
        for name in names:
            circuit.failed(name, code="down")


async def at_work(circuit: Circuit, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(circuit.work())
    async with asyncio.timeout(30):
        while not until():  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(BRIEF)
    task.cancel()


def test_failures_in_a_row_open_it() -> None:
    circuit = a_circuit()

    fail(circuit, *range(OPEN_AFTER - 1))
    before = circuit.closed
    fail(circuit, "last")

    assert (before, circuit.closed) == (True, False)


def test_a_pass_in_between_keeps_it_closed() -> None:
    circuit = a_circuit()

    for number in range(10):
        fail(circuit, *range(OPEN_AFTER - 1))
        circuit.passed([number])

    assert circuit.closed


def test_one_record_alone_does_not_open_it() -> None:
    circuit = a_circuit()

    fail(circuit, "bad", times=10 * OPEN_AFTER)

    assert circuit.closed


def test_what_passes_closes_it() -> None:
    circuit = a_circuit()
    told: list[bool] = []
    circuit.listen(lambda: told.append(circuit.closed))
    fail(circuit, *range(OPEN_AFTER))

    circuit.passed(["a"])

    assert (circuit.closed, told) == (True, [False, True])


async def test_a_ping_closes_it_once_the_sink_is_there() -> None:
    sink = Sink()
    sink.away = True
    circuit = a_circuit(sink)
    fail(circuit, *range(OPEN_AFTER))

    await at_work(circuit, lambda: sink.pings > 3)
    before = circuit.closed
    sink.away = False
    await at_work(circuit, lambda: circuit.closed)

    assert before is False


async def test_on_a_quiet_topic_pings_open_it() -> None:
    sink = Sink()
    sink.away = True
    circuit = a_circuit(sink)
    fail(circuit, "a")

    await at_work(circuit, lambda: not circuit.closed)

    assert sink.pings >= OPEN_AFTER - 1


async def test_nobody_is_pinged_while_nothing_fails() -> None:
    sink = Sink()
    circuit = a_circuit(sink)
    fail(circuit, "a")

    await at_work(circuit, lambda: sink.pings > 0)
    circuit.passed(["a"])
    pings = sink.pings
    task = asyncio.create_task(circuit.work())
    for _ in range(20):
        await asyncio.sleep(BRIEF)
    task.cancel()

    assert sink.pings == pings


@pytest.mark.parametrize(
    ("passed", "failed", "at_fault"), [(100, 0, True), (8, 0, True), (7, 0, False), (80, 10, False), (200, 10, True)]
)
def test_a_record_is_at_fault_where_few_others_fail(passed: int, failed: int, at_fault: bool) -> None:  # noqa: FBT001 - a table
    circuit = a_circuit(pings_sink=False)
    fail(circuit, "bad")
    for number in range(passed):
        circuit.passed([number])
    for number in range(failed):
        fail(circuit, f"other_{number}")
        circuit.passed([])

    fail(circuit, "bad", times=OWN_FAILURES - 2)
    before = circuit.at_fault("bad")
    fail(circuit, "bad")

    assert (before, circuit.at_fault("bad")) == (False, at_fault)


@pytest.mark.parametrize("pings_sink", [True, False])
def test_a_record_alone_is_at_fault_only_if_the_ping_asks_the_same_sink(pings_sink: bool) -> None:  # noqa: FBT001 - two cases
    circuit = a_circuit(pings_sink=pings_sink)

    fail(circuit, "bad", times=OWN_FAILURES_ALONE - 1)
    before = circuit.at_fault("bad")
    fail(circuit, "bad")

    assert (before, circuit.at_fault("bad")) == (False, pings_sink)


def test_of_two_that_fail_none_is_alone() -> None:
    circuit = a_circuit()

    fail(circuit, "a", "b", times=OWN_FAILURES_ALONE // 2 - 1)
    circuit.passed([])
    fail(circuit, "a", "b", times=OWN_FAILURES_ALONE // 2 - 1)
    circuit.passed([])
    fail(circuit, "a", "b", times=2)

    assert (circuit.at_fault("a"), circuit.at_fault("b")) == (False, False)


async def test_what_failed_before_the_sink_was_away_counts_no_more() -> None:
    sink = Sink()
    circuit = a_circuit(sink)
    fail(circuit, "a", times=OWN_FAILURES_ALONE)
    sink.away = True

    there = await circuit.there()

    assert (there, circuit.at_fault("a"), circuit.failed("a", code="down")) == (False, False, 1)


def test_nobody_in_particular_is_at_fault() -> None:
    circuit = a_circuit()

    fail(circuit, None, times=OWN_FAILURES_ALONE)

    assert (circuit.at_fault(None), circuit.closed) == (False, False)


def test_a_key_that_passed_begins_anew() -> None:
    circuit = a_circuit()
    fail(circuit, "a", times=OWN_FAILURES_ALONE - 1)

    circuit.passed(["a", "b"])
    fail(circuit, "a")

    assert circuit.at_fault("a") is False


def test_what_is_remembered_is_bounded() -> None:
    circuit = a_circuit()

    for number in range(FAILING_MAX + 10):
        fail(circuit, number)
        circuit.passed([])

    assert len(circuit.failing) == FAILING_MAX
