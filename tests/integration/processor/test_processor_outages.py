import asyncio
from dataclasses import replace

import pytest

from bridge.errors import TransientError
from bridge.event import Event
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import Batches, Lanes
from consumers.postgres.errors import NoConnectionError
from consumers.runtime.circuit import OPEN_AFTER
from tests.kafka import until
from tests.settling import PLACE, Bench, Effects, FailingLedger, Gate, a_consumer, a_database, a_record, at_work


@pytest.mark.parametrize("mode", [Lanes(1, transactional=True), Lanes(1)], ids=["inside", "outside"])
@pytest.mark.parametrize(
    "failure",
    [NoConnectionError("too_many_connections"), TransientError("statement_timeout")],
    ids=lambda exc: exc.code,
)
@pytest.mark.parametrize("step", ["begin_fails", "commit_fails"])
async def test_what_our_own_statements_meet_is_no_records_fault_although_others_pass(
    bench: Bench, effects: Effects, ledger: FailingLedger, failure: TransientError, step: str
) -> None:
    """A busy server refuses one and serves another."""
    effects.fail = lambda event, tried: TransientError("conflict") if event.id == "evt_0" and not tried else None
    offset = 1

    def refuses(tp: TopicPartition) -> Exception | None:
        queue = bench.processor._partitions[tp].queues.get("rx_1")
        its = effects.attempts and queue and queue.has_lane == bench.consumer.transactional
        return failure if its and ledger.failed < 20 else None

    setattr(ledger, step, refuses)
    await bench.feed([a_record(0)])
    while ledger.failed < 20:
        bench.processor.offer(PLACE, [a_record(offset, f"rx_{offset + 1}")])
        offset += 1
        await asyncio.sleep(0.01)
    await bench.settled(offset)

    assert await bench.parked() == []
    assert len(effects.kept) == offset
    if step == "begin_fails" or not bench.consumer.transactional:
        assert len(effects.applied) == offset, "the handler is not asked about the record again"


async def test_a_batch_that_takes_long_costs_a_retried_record_no_attempts(ledger_dsn: str) -> None:
    """The batch holds the partition's row, so that the record's own transaction cannot write progress meanwhile."""
    effects = Effects()
    hanging, go_on = asyncio.Event(), asyncio.Event()
    effects.fail = lambda event, tried: TransientError("conflict") if event.id == "evt_0" and tried < 2 else None

    async def hang(event: Event) -> None:
        if event.id == "evt_1":
            hanging.set()
            await go_on.wait()
        elif effects.attempts.count("evt_0") > 2:  # after the batch and the first attempt on its own
            await hanging.wait()

    effects.before = hang

    async with (
        a_database(ledger_dsn, lock_timeout_s=0.02) as database,
        at_work(a_consumer(effects, Batches(50, 0.005)), database) as bench,
    ):
        await bench.feed([a_record(0)])
        await until(lambda: bench.outcome("retry") == 1)
        bench.processor.offer(PLACE, [a_record(1, "rx_2"), a_record(2, "rx_3")])
        await hanging.wait()
        await until(lambda: effects.attempts.count("evt_0") > 8)
        go_on.set()
        await bench.settled(3)

        assert await bench.parked() == []
        assert sorted(await bench.effects()) == ["evt_0", "evt_1", "evt_2"]


@pytest.mark.parametrize("mode", [Lanes(1, transactional=True)])
async def test_our_own_statements_of_a_lone_key_open_the_circuit(
    bench: Bench, effects: Effects, ledger: FailingLedger
) -> None:
    failure = NoConnectionError("too_many_connections")
    ledger.begin_fails = lambda _: failure if bench.count("circuit_state", state="closed") else None
    await bench.feed_all([a_record(0)])

    assert ledger.failed >= OPEN_AFTER
    assert effects.applied == ["evt_0"]


@pytest.mark.parametrize("mode", [Lanes(1, transactional=True)])
async def test_locks_between_our_own_statements_are_no_failure_of_the_sink(bench: Bench, ledger: FailingLedger) -> None:
    failures = iter([TransientError("deadlock")] * 2)
    ledger.begin_fails = lambda _: next(failures, None)
    await bench.feed_all([a_record(0)])

    assert (ledger.failed, bench.count("consumer_sink_failures_total")) == (2, 0)


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_a_decision_that_the_database_does_not_take_is_written_again_after_growing_delays(bench: Bench) -> None:
    ceilings: list[float] = []
    fails = iter([NoConnectionError("too_many_connections")] * 5)

    def spread(_: float, high: float) -> float:
        ceilings.append(high)
        return 0.0

    async def write() -> None:
        for failure in fails:
            raise failure

    await replace(bench.processor._settling, spread=spread).persist(write)

    assert (ceilings, bench.count("consumer_sink_failures_total")) == ([0.4, 0.8, 1.6, 3.2, 5.0], 5)


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_what_is_in_flight_and_how_old_it_gets_is_reported(bench: Bench, effects: Effects) -> None:
    gate = Gate(effects)
    await bench.feed([a_record(0), a_record(1)])
    await until(lambda: bench.count("inflight_records") == 2 and bench.count("oldest_inflight_age_seconds") > 0)
    gate.open()
    await bench.settled(2)

    assert bench.count("freshness_seconds_count", segment="end_to_end") == 2
    assert bench.count("freshness_seconds_count", segment="kafka_to_applied") == 2
    assert bench.count("circuit_state", state="closed") == 1
