from functools import partial

import pytest

from bridge.errors import PermanentError, TransientError
from consumers.api import Batches, Lanes
from consumers.postgres.pool import Database
from consumers.runtime import operator
from consumers.runtime.operator import By
from tests.kafka import until
from tests.logs import capture_logs
from tests.settling import GROUP, PLACE, Bench, Effects, FailingLedger, Gate, a_consumer, a_record, at_work


async def test_a_record_that_fails_again_stays_with_its_new_code(bench: Bench, effects: Effects) -> None:
    code = "first"
    effects.fail = lambda event, _: PermanentError(code) if event.id == "evt_1" else None
    await bench.feed_all([a_record(0), a_record(1), a_record(2)])
    code = "second"
    await bench.request_release("rx_1")
    await bench.until_rows("select code from drx_consumer.parked_key where release_requested_at is null", [("second",)])
    bench.processor.offer(PLACE, [a_record(3)])
    await bench.settled(4)

    assert await bench.parked() == [("rx_1", 1, "second"), ("rx_1", 2, "key_parked"), ("rx_1", 3, "key_parked")]
    assert (effects.kept, bench.processor._partitions[PLACE].releases) == (["evt_0"], set())


@pytest.mark.parametrize("mode", [Lanes(4)])
@pytest.mark.parametrize("failure", [TransientError("deadlock"), ConnectionResetError()], ids=repr)
async def test_a_database_that_fails_as_a_key_is_parked_or_released_is_no_failure_of_its_record(
    bench: Bench, effects: Effects, ledger: FailingLedger, failure: Exception
) -> None:
    """The log has the first failure of each record at its sink, again for a released one."""
    fails = iter([ConnectionRefusedError(), PermanentError("refused"), ConnectionRefusedError()])
    effects.fail = lambda *_: next(fails, None)
    away = iter([failure, None] * 3)
    ledger.begin_fails = lambda _: next(away, None)
    with capture_logs() as logs:
        await bench.feed_all([a_record(0)])
        await bench.request_release("rx_1")
        await bench.until_rows("select key from drx_consumer.parked_key", [])

    at_sink = [each for each in logs if each["event"] == "worker.sink_failed" and "event_id" in each]
    assert (ledger.failed, len(at_sink), len(effects.attempts)) == (3, 2, 4)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize(
    ("verb", "left", "again", "applied"), [("skip", [2, 3], 2, 1), ("drop", [], 0, 1), ("park", [0, 1, 2, 3], 1, 0)]
)
@pytest.mark.parametrize("mode", [Lanes(4)])
async def test_a_record_that_an_operator_decides_on_while_it_is_released_leaves_its_result_to_no_other(
    bench: Bench,
    effects: Effects,
    database: Database,
    *,
    fails: bool,
    verb: str,
    left: list[int],
    again: int,
    applied: int,
) -> None:
    effects.refused = {"evt_0", "evt_2"}
    released = False
    gate = Gate(effects, lambda event: released and event.id == "evt_0")
    await bench.feed_all([a_record(0), a_record(1), a_record(2)])
    released = True
    effects.refused = {"evt_0", "evt_2"} if fails else {"evt_2"}
    await bench.request_release("rx_1")
    await gate.reached.wait()
    decide = operator.park if verb == "park" else partial(operator.discard, offset=None if verb == "drop" else 0)
    await decide(database, GROUP, PLACE.topic, "rx_1", by=By("kim", "gone"))
    gate.open()
    bench.processor.offer(PLACE, [a_record(3)])
    await bench.settled(4)

    parked = [("rx_1", each, "refused" if each == left[0] else "key_parked") for each in left]
    await bench.until_rows('select key, "offset", code from drx_consumer.parked_event order by 2', parked)
    again += verb == "park" and fails
    await until(lambda: bench.outcome("parked") >= 3 + again)
    assert bench.outcome("parked") == 3 + again, "evt_0 is not parked again, unless it stays and fails"
    assert bench.outcome("applied") == applied, "of evt_1 or, when all are dropped, evt_3"
    assert effects.attempts.count("evt_0") == 2


async def test_a_parked_record_that_is_not_wanted_any_more_is_released_unhandled(
    database: Database, effects: Effects, mode: Lanes | Batches
) -> None:
    effects.refused = {"evt_0"}
    async with at_work(a_consumer(effects, mode), database) as bench:
        await bench.feed_all([a_record(0)])
    async with at_work(a_consumer(effects, mode, types=["renewal.*"]), database) as bench:
        await bench.adopt()
        await bench.request_release("rx_1")
        await bench.until_rows("select key from drx_consumer.parked_key", [])
    assert effects.applied == []


async def test_new_records_of_a_key_never_overtake_its_release(bench: Bench, effects: Effects) -> None:
    """The interleaving is forced: the release stands in the middle of its first record when new ones come."""
    effects.refused = {"evt_0"}
    gate = Gate(effects, lambda event: event.id == "evt_0" and not effects.refused)
    await bench.feed_all([a_record(0), a_record(1)])
    effects.refused.clear()
    await bench.request_release("rx_1")
    await gate.reached.wait()
    bench.processor.offer(PLACE, [a_record(2), a_record(3, "rx_2"), a_record(4)])
    await until(lambda: "evt_3" in effects.applied)
    gate.open()
    await bench.settled(5)

    assert [event for event in effects.kept if event != "evt_3"] == ["evt_0", "evt_1", "evt_2", "evt_4"]
    assert await bench.parked() == []


@pytest.mark.parametrize("mode", [Batches(50, 0.005)])
async def test_a_release_waits_for_a_batch_that_appends_to_the_same_key(bench: Bench, effects: Effects) -> None:
    """A record that a batch has in hand as parked must not be overtaken by one that came after the release."""
    effects.refused = {"evt_0"}
    gate = Gate(effects, lambda event: event.id == "evt_2")
    await bench.feed_all([a_record(0)])
    effects.refused.clear()
    # Not due yet, so that nobody begins it but this test.
    due = "clock_timestamp() + interval '1 hour'"
    await bench.rows(f"update drx_consumer.parked_key set release_requested_at = {due} returning 1")  # noqa: S608 - ours
    bench.processor.offer(PLACE, [a_record(1), a_record(2, "rx_2"), a_record(3)])
    await gate.reached.wait()
    bench.processor._begin_release(bench.processor._partitions[PLACE], "rx_1")
    bench.processor.offer(PLACE, [a_record(4)])
    gate.open()
    await bench.settled(5)
    await bench.until_rows("select key from drx_consumer.parked_key", [])

    assert [event for event in effects.kept if event != "evt_2"] == ["evt_0", "evt_1", "evt_3", "evt_4"]
    assert bench.outcome("parked") == 3
