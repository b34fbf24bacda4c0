import asyncio
from typing import Any

import pytest

from bridge.errors import TransientError
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import WINDOW_RECORDS, Batches, Lanes
from consumers.postgres.pool import Database
from consumers.runtime.partition import SETTLED_WINDOWS
from tests.kafka import until
from tests.logs import capture_logs
from tests.settling import PLACE, Bench, Effects, FailingLedger, Gate, a_consumer, a_record, at_work


@pytest.mark.parametrize("left", ["next_offset = 2, last_event_id = 'evt_1'", "next_offset = null"])
async def test_what_a_database_has_lost_is_applied_again(
    bench: Bench, effects: Effects, mode: Lanes | Batches, left: str
) -> None:
    """It was restored from a backup, or a standby took over without the last commits, while the process ran."""
    log = [a_record(offset, f"rx_{offset}") for offset in range(8)]
    await bench.feed_all(log[:6])
    await bench.rows('delete from effect where "offset" >= 2 returning 1')
    await bench.rows("delete from drx_consumer.inbox where event_id >= 'evt_2' returning 1")
    await bench.rows("delete from drx_consumer.settled returning 1")  # lanes leave some below the mark for a while
    older = "updated_at = updated_at - interval '1 hour'"
    await bench.rows(f"update drx_consumer.progress set {left}, {older} returning 1")  # noqa: S608 - ours
    bench.processor.offer(PLACE, log[6:])
    await bench.read_again(log)
    await bench.settled(8)

    assert {f"evt_{n}" for n in range(2, 8)} <= set(effects.applied[6:])
    if isinstance(mode, Batches) or mode.transactional:  # else its handler could not look at what was lost
        assert effects.attempts.count("evt_6") == 1
    assert sorted(await bench.rows("select event_id from drx_consumer.inbox")) == [(f"evt_{n}",) for n in range(8)]


@pytest.mark.parametrize("mode", [Lanes(4)])
async def test_a_key_that_a_restored_database_does_not_park_keeps_its_order(bench: Bench, effects: Effects) -> None:
    """Else a handler outside the transaction gets a later event of the key before those whose parking was lost."""
    effects.refused = {"evt_0"}
    log = [a_record(0), a_record(1)]
    await bench.feed_all(log[:1])
    effects.refused.clear()
    for table in ("parked_event", "parked_key", "settled"):
        await bench.rows(f"delete from drx_consumer.{table} returning 1")  # noqa: S608 - ours
    older = "updated_at = updated_at - interval '1 hour'"
    await bench.rows(f"update drx_consumer.progress set next_offset = 0, {older} returning 1")  # noqa: S608 - ours
    bench.processor.offer(PLACE, log[1:])
    await bench.read_again(log)
    await bench.settled(2)

    assert effects.applied == ["evt_0", "evt_1"]


@pytest.mark.parametrize("mode", [Lanes(4, transactional=True)])
async def test_a_commit_that_is_seen_late_hides_no_later_one(
    bench: Bench, ledger: FailingLedger, effects: Effects
) -> None:
    """Else the loss of the later one would not be noticed."""
    gate = Gate(effects)
    await bench.feed([a_record(0), a_record(1, "rx_2")])
    await until(lambda: len(effects.attempts) == 2)
    held = ledger.hold_commit()
    gate.open()
    await until(lambda: bench.outcome("applied") == 1)
    ((latest,),) = await bench.rows("select updated_at from drx_consumer.progress")
    held.set()
    await bench.settled(2)

    assert bench.processor._partitions[PLACE].claim.updated_at >= latest


@pytest.mark.parametrize("mode", [Lanes(4)])
@pytest.mark.parametrize("failure", [TimeoutError(), TransientError("deadlock")], ids=repr)
async def test_where_reading_starts_is_written_though_no_record_comes(
    bench: Bench, ledger: FailingLedger, failure: Exception
) -> None:
    """After a restore an empty partition goes on from there; the event before another offset is not known."""
    ledger.begin_fails = lambda _: failure if ledger.failed < 1 and bench.processor.next_offset(PLACE) == 7 else None
    await bench.feed_all([a_record(0)])
    await bench.processor.adopt(PLACE)
    before = bench.processor.next_offset(PLACE)
    bench.processor.start(PLACE, 7)

    assert before is None
    await bench.until_rows("select next_offset, last_event_id from drx_consumer.progress", [(7, None)])


@pytest.mark.parametrize("mode", [Lanes(1, transactional=True)])
async def test_a_worker_whose_partition_was_claimed_by_another_goes_on(bench: Bench, ledger: FailingLedger) -> None:
    for read in ([], [a_record(0)]):  # without a record, it is noticed as the start is written
        await bench.adopt()
        await ledger.claim(PLACE)
        bench.processor.offer(PLACE, read)
        await bench.read_again(read)
    await bench.settled(1)
    assert bench.outcome("applied") == 1


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_no_handler_is_called_for_a_partition_that_was_lost(bench: Bench, effects: Effects) -> None:
    gate, other = Gate(effects), TopicPartition(PLACE.topic, 1)
    await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(20)])
    await gate.reached.wait()
    bench.processor.forget([PLACE])
    gate.open()
    await bench.feed_all([a_record(0, id="evt_other", tp=other)], other)

    assert (effects.attempts, effects.applied) == (["evt_0", "evt_other"], ["evt_other"])


async def test_a_drain_settles_what_is_in_flight_and_starts_nothing(bench: Bench, effects: Effects) -> None:
    gate, other = Gate(effects), TopicPartition(PLACE.topic, 1)
    await bench.adopt(other)
    await bench.feed([a_record(0)])
    await gate.reached.wait()
    bench.processor.forget([other])
    bench.stop.set()
    draining = asyncio.create_task(bench.processor.drain([PLACE], timeout_s=30))
    await asyncio.sleep(0)
    bench.processor.offer(PLACE, [a_record(1)])
    gate.open()
    await draining

    assert (bench.processor.next_offset(PLACE), effects.applied) == (1, ["evt_0"])


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_a_drain_during_the_lookup_of_a_record_starts_nothing(
    bench: Bench, effects: Effects, ledger: FailingLedger
) -> None:
    drains: list[asyncio.Task[None]] = []
    ledger.look_fails = lambda _: drains.append(asyncio.create_task(bench.processor.drain([PLACE], timeout_s=30)))
    await bench.feed([a_record(0)])
    await until(lambda: bool(drains) and not bench.processor._partitions[PLACE].queues)
    await drains[0]

    assert effects.attempts == []


@pytest.mark.parametrize("mode", [Lanes(4)])
@pytest.mark.parametrize("refused", ["evt_1", "evt_0"], ids=["parked", "appended"])
async def test_a_drain_waits_for_a_record_that_is_being_parked(
    bench: Bench, effects: Effects, ledger: FailingLedger, refused: str
) -> None:
    effects.refused = {refused}
    await bench.feed_all([a_record(0)])
    held = ledger.hold_commit()
    bench.processor.offer(PLACE, [a_record(1)])
    await bench.until_rows('select 1 from drx_consumer.parked_event where "offset" = 1', [(1,)])
    draining = asyncio.create_task(bench.processor.drain([PLACE], timeout_s=30))
    await asyncio.sleep(0)
    held.set()
    await draining

    assert bench.processor.next_offset(PLACE) == 2


async def test_a_drain_gives_up_at_its_end(bench: Bench, effects: Effects) -> None:
    gate = Gate(effects)
    idle, absent = (TopicPartition(PLACE.topic, number) for number in (1, 2))
    await bench.adopt(idle)
    await bench.feed([a_record(0)])
    await gate.reached.wait()
    with capture_logs() as logs:
        await bench.processor.drain([PLACE, idle, absent], timeout_s=0.05)

    assert [each["partition"] for each in logs if each["event"] == "worker.given_up"] == [0]
    assert [bench.processor._partitions[tp].gone for tp in (PLACE, idle)] == [True, False]
    assert bench.processor.next_offset(PLACE) == 0
    assert await bench.effects() == []


async def test_skip_then_crash_then_read_again(database: Database, effects: Effects, mode: Lanes | Batches) -> None:
    """A skip is written with the next progress only; to lose it costs a second skip, never an effect."""
    log = [a_record(0), a_record(1, type="renewal.requested"), a_record(2), a_record(3, type="renewal.requested")]
    consumer = a_consumer(effects, mode, types=["prescription.*"])
    async with at_work(consumer, database) as bench:
        await bench.feed_all(log)
        bench.processor.forget([PLACE])
        await bench.rows("update drx_consumer.progress set next_offset = 1 returning 1")

    async with at_work(consumer, database) as bench:
        await bench.feed_all(log)
        bench.processor.offer(PLACE, [a_record(4, type="renewal.requested")])
        await bench.until_rows("select next_offset from drx_consumer.progress", [(5,)])

    assert effects.kept == ["evt_0", "evt_2"]


async def test_what_is_read_again_and_was_settled_above_the_mark_is_stale(bench: Bench, effects: Effects) -> None:
    claim = await bench.ledger.claim(PLACE)
    async with bench.ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.settle(next_offset=0, last_event_id=None, above=(1, 2))
    await bench.feed_all([a_record(offset, f"rx_{offset}") for offset in range(4)])

    assert (bench.outcome("stale"), bench.outcome("applied")) == (2, 2)
    assert sorted(effects.kept) == ["evt_0", "evt_3"]


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_the_window_is_bounded(bench: Bench, effects: Effects) -> None:
    effects.fail = lambda *_: TransientError("down", systemic=True)
    await bench.feed([a_record(offset) for offset in range(WINDOW_RECORDS - 1)])
    before = bench.processor.room(PLACE)
    bench.processor.offer(PLACE, [a_record(WINDOW_RECORDS - 1)])

    assert (before, bench.processor.room(PLACE)) == (True, False)

    window, end = bench.processor._partitions[PLACE].window, SETTLED_WINDOWS * WINDOW_RECORDS
    for offset in range(WINDOW_RECORDS, end):
        window.add(offset, size=0, event_id="", now=0.0)
    window.settle(range(1, end))
    assert not bench.processor.room(PLACE)


@pytest.mark.parametrize("mode", [Lanes(4, transactional=True)])
async def test_lanes_whose_partition_is_lost_twice_while_they_roll_back_are_used_again(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that was frozen is fenced, and loses the partition at the next rebalance before the rollback ends."""
    gate, may_roll_back = Gate(effects), asyncio.Event()
    roll_back = Database._rolled_back

    async def slow(self: Database, *args: Any) -> bool:
        await may_roll_back.wait()
        return await roll_back(self, *args)

    monkeypatch.setattr(Database, "_rolled_back", slow)
    log = [a_record(offset, f"rx_{offset}") for offset in range(4)]
    await bench.feed(log)
    await until(lambda: len(effects.attempts) == len(log))
    bench.processor._partitions.fence(bench.processor._partitions[PLACE])
    await asyncio.sleep(0)
    bench.processor.forget([PLACE])
    gate.open()
    may_roll_back.set()
    await bench.feed_all(log)

    assert sorted(effects.kept) == [f"evt_{offset}" for offset in range(4)]
