import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from bridge.errors import TransientError
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


def a_circuit(sink: Sink | None = None) -> Circuit:
    metrics = ConsumerMetrics(CollectorRegistry(), service="tests")
    ping = (sink or Sink()).ping
    return Circuit(ping, metrics=metrics, group="tests", spread=lambda *_: BRIEF)


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


def test_failures_of_several_records_in_a_row_open_it_and_nothing_else_does() -> None:
    circuit = a_circuit()

    fail(circuit, "bad", times=10 * OPEN_AFTER)
    for _ in range(10):
        circuit.passed()
        fail(circuit, *range(OPEN_AFTER - 1))
    before = circuit.closed
    fail(circuit, "last")

    assert (before, circuit.closed) == (True, False)


async def test_a_ping_that_passes_admits_one_record_and_what_passes_closes_it() -> None:
    sink = Sink()
    sink.away = True
    circuit = a_circuit(sink)
    fail(circuit, *range(OPEN_AFTER))

    await at_work(circuit, lambda: sink.pings > 3)
    away = circuit.admits()
    sink.away = False
    await at_work(circuit, lambda: not circuit.halts)
    there = [circuit.admits(), circuit.admits()]
    circuit.passed()

    assert (away, there, circuit.admits()) == (False, [True, False], True)


async def test_a_ping_closes_it_where_nobody_has_anything_to_try() -> None:
    circuit = a_circuit()
    fail(circuit, *range(OPEN_AFTER))

    await at_work(circuit, lambda: circuit.closed)
