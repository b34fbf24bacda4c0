import asyncio
import contextlib
import itertools

import pytest

from bridge.errors import PermanentError, TransientError
from bridge.event import Event
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import ATTEMPTS, Consumer, Context, Lanes
from consumers.postgres.pool import Database
from consumers.runtime import calls
from consumers.runtime.key_queues import ROUNDS_MAX
from tests.kafka import HANG_S, until
from tests.logs import capture_logs
from tests.settling import GROUP, PLACE, Bench, Effects, FailingLedger, Gate, a_consumer, a_database, a_record, at_work

MODES = pytest.mark.parametrize("mode", [Lanes(8, transactional=True), Lanes(8)], ids=["inside", "outside"])


@pytest.mark.parametrize("mode", [Lanes(8)])
@pytest.mark.parametrize("body", ["", "other"])
async def test_an_event_is_no_duplicate_of_an_equal_one_that_is_asked_about_with_it(
    bench: Bench, effects: Effects, body: str
) -> None:
    """Both may be refused: then none of them was ever applied."""
    effects.refused = {"evt_same"}
    log = [a_record(0, "rx_1", id="evt_same"), a_record(1, "rx_2", id="evt_same", body=body), a_record(2, "rx_3")]
    await bench.feed_all(log)

    assert await bench.parked() == [("rx_1", 0, "refused"), ("rx_2", 1, "refused")]
    assert effects.applied == ["evt_2"]


@pytest.mark.parametrize("mode", [Lanes(8)])
async def test_an_inbox_that_gives_no_answer_counts_against_no_record(bench: Bench, ledger: FailingLedger) -> None:
    fails = itertools.chain([TransientError("statement_timeout")] * 2 * ATTEMPTS, itertools.repeat(None))
    ledger.look_fails = lambda _: next(fails)
    await bench.feed_all([a_record(offset, f"rx_{offset}") for offset in range(8)])

    assert ledger.failed == 2 * ATTEMPTS
    assert (bench.outcome("retry"), bench.count("consumer_sink_failures_total"), await bench.parked()) == (0, 0, [])


@pytest.mark.parametrize("mode", [Lanes(8)])
async def test_an_event_that_the_inbox_refuses_keeps_no_other_from_its_answer(
    bench: Bench, effects: Effects, ledger: FailingLedger
) -> None:
    ledger.look_fails = lambda events: PermanentError("22021") if "evt_3" in events else None
    await bench.feed_all([a_record(offset, f"rx_{offset}") for offset in range(8)])

    assert await bench.parked() == [("rx_3", 3, "22021")]
    assert sorted(effects.applied) == [f"evt_{offset}" for offset in range(8) if offset != 3]


@pytest.mark.parametrize("mode", [Lanes(8)])
async def test_what_waits_for_an_inbox_that_is_away_holds_no_drain_up(
    bench: Bench, effects: Effects, ledger: FailingLedger
) -> None:
    ledger.look_fails = lambda _: TransientError("connection_lost", systemic=True)
    await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(8)])
    await until(lambda: bench.count("circuit_state", state="open") == 1)
    with capture_logs() as lines:
        await bench.processor.drain([PLACE], timeout_s=HANG_S)

    ledger.look_fails = lambda _: None
    await until(lambda: not bench.processor._partitions[PLACE].queues)
    assert "worker.given_up" not in {line["event"] for line in lines}
    assert effects.attempts == []


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_partitions_that_cannot_be_settled_hold_no_other_up(bench: Bench, ledger: FailingLedger) -> None:
    tps = [TopicPartition(PLACE.topic, number) for number in range(ROUNDS_MAX + 1)]
    ledger.begin_fails = lambda tp: TransientError("deadlock") if tp in tps[:-1] else None
    for tp in tps[:-1]:
        await bench.feed([a_record(0, f"rx_{tp.partition}", id=f"evt_{tp.partition}", tp=tp)], tp)
    await until(lambda: ledger.failed >= ROUNDS_MAX)
    await bench.feed_all([a_record(0, "rx_last", id="evt_last", tp=tps[-1])], tps[-1])
    ledger.begin_fails = lambda _: None
    for tp in tps:
        await bench.settled(1, tp)


@MODES
async def test_a_hung_key_delays_no_other(bench: Bench, effects: Effects) -> None:
    gate = Gate(effects, lambda event: event.key == "rx_0")
    await bench.feed([a_record(offset, f"rx_{offset % 5}") for offset in range(50)])
    await until(lambda: bench.outcome("applied") == 40)
    gate.open()
    await bench.settled(50)

    assert effects.applied[40:] == [f"evt_{offset}" for offset in range(0, 50, 5)]


async def test_handlers_that_keep_every_lane_busy_leave_a_connection_for_the_rest(ledger_dsn: str) -> None:
    effects = Effects()
    gate = Gate(effects)
    consumer = a_consumer(effects, Lanes(8, transactional=True)).within(3)

    async with a_database(ledger_dsn, size=3, acquire_timeout_s=0.5) as database, at_work(consumer, database) as bench:
        await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(8)])
        await until(lambda: len(effects.attempts) > 1)
        await bench.adopt(TopicPartition(PLACE.topic, 1))
        closed = bench.count("circuit_state", state="closed")
        gate.open()
        await bench.settled(8)

        assert (closed, sorted(effects.applied)) == (1, [f"evt_{offset}" for offset in range(8)])


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_keys_in_back_off_hold_no_worker(bench: Bench, effects: Effects) -> None:
    healed = asyncio.Event()
    effects.fail = lambda event, _: (
        TransientError("conflict") if event.key.startswith("bad") and not healed.is_set() else None
    )
    effects.refused = {"evt_6"}
    log = [a_record(offset, f"bad_{offset}") for offset in range(4)] + [a_record(4, "rx_1"), a_record(5, "rx_2")]
    await bench.feed([*log, a_record(6, "bad_0")])
    await until(lambda: bench.outcome("applied") == 2)
    healed.set()
    await bench.settled(7)

    assert effects.applied[:2] == ["evt_4", "evt_5"]
    assert await bench.rows("select attempts from drx_consumer.parked_event") == [(1,)], "of its own"


async def test_an_id_that_two_keys_have_at_the_same_moment_is_published_by_the_first_alone(database: Database) -> None:
    effects = Effects()
    both = Gate(effects)
    consumer = Consumer(GROUP, [PLACE.topic], mode=Lanes(8), publishes=["out"])

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        await effects.one(event, context)
        context.publish("out", event.key, "v")

    async with at_work(consumer, database) as bench:
        await bench.feed([a_record(0, "rx_1", id="evt_same")])
        await both.reached.wait()
        bench.processor.offer(PLACE, [a_record(1, "rx_2", id="evt_same", body="other"), a_record(2, "rx_2")])
        await until(lambda: len(effects.attempts) == 2)
        both.open()
        await bench.settled(3)

        assert bench.count("id_conflicts_total", source="drx") == 1
        assert await bench.rows("select count(*) from drx_consumer.outbox") == [(2,)]


async def test_a_handler_that_swallows_cancellation_costs_its_key_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "CANCEL_S", 0.01)
    effects = Effects()
    end = asyncio.Event()

    async def stubborn(event: Event, context: Context) -> None:
        if event.id == "evt_0":
            while not end.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await end.wait()
        await effects.one(event, context)

    consumer = Consumer(GROUP, [PLACE.topic], mode=Lanes(2, transactional=True), handler_timeout_s=0.5)
    consumer.handler(stubborn)

    async with at_work(consumer, database) as bench:
        with capture_logs() as logs:
            await bench.feed([a_record(0), a_record(1, "rx_2"), a_record(2, "rx_3")])
            await bench.settled(await bench.others_pass(3))

        stuck = next(each for each in logs if each["event"] == "worker.handler_stuck")
        assert (stuck["group"], stuck["topic"], stuck["partition"], stuck["offset"]) == (GROUP, *PLACE, 0)
        assert await bench.parked() == [("rx_1", 0, "handler_timeout")]
        assert {"evt_1", "evt_2"} <= set(await bench.effects())
        end.set()
