from dataclasses import replace

import pytest

from bridge.errors import DecodeError, TransientError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.api import Batches, Lanes
from consumers.postgres.pool import Database
from consumers.runtime import operator, parking, partition
from consumers.runtime.decoding import UNKNOWN_GRACE_S
from consumers.runtime.operator import By
from consumers.runtime.park_limit import ParkLimitError
from tests.kafka import until
from tests.logs import capture_logs
from tests.settling import (
    ALL_MODES,
    GROUP,
    PLACE,
    POISON,
    Bench,
    Effects,
    Gate,
    PlainDecoder,
    a_consumer,
    a_database,
    a_record,
    at_work,
    hasty_learner,
)

UNKNOWN = b'\0\0\0\0\x07{"id": "evt_0", "type": "prescription.sent"}'


async def test_a_registry_that_is_away_keeps_no_circuit_open(database: Database, mode: Lanes | Batches) -> None:
    effects = Effects()
    effects.down = True
    decoder = PlainDecoder()
    decoder.answer = TransientError("registry_unreachable", systemic=True)
    learner = hasty_learner(decoder)
    consumer = a_consumer(effects, mode, ping=effects.ping)

    async with at_work(consumer, database, decoder=decoder, learner=learner) as bench:
        await bench.feed([a_record(0, "rx_0", value=UNKNOWN)])
        await until(lambda: decoder.learned > 1)
        bench.processor.offer(PLACE, [a_record(offset, f"rx_{offset}") for offset in range(1, 31)])
        await until(lambda: bench.count("circuit_state", state="open") == 1)
        effects.down = False
        await until(lambda: bench.count("circuit_state", state="closed") == 1)
        await until(lambda: len(effects.kept) == 30)
        halted = bench.processor.halted(PLACE)
        decoder.answer = None
        await bench.settled(31)

        assert (halted, await bench.parked()) == (False, [])


async def test_a_schema_that_the_registry_learns_late_lets_a_key_go_on(database: Database) -> None:
    effects, decoder, now = Effects(), PlainDecoder(), 0.0
    decoder.answer = DecodeError("unknown_schema_id")
    learner = hasty_learner(decoder, lambda: now)

    async with at_work(a_consumer(effects, Lanes(4)), database, decoder=decoder, learner=learner) as bench:
        await bench.feed([a_record(0, value=UNKNOWN)])
        await until(lambda: decoder.learned >= 1)
        now = UNKNOWN_GRACE_S + 1
        await bench.settled(1)
        assert await bench.parked() == [("rx_1", 0, "unknown_schema_id")]
        decoder.answer = None
        await bench.request_release("rx_1")
        await bench.until_rows("select key from drx_consumer.parked_key", [])

        assert effects.kept == ["evt_0"]


async def test_a_record_that_is_skipped_while_its_schema_is_fetched_leaves_its_failure_to_no_other(
    database: Database,
) -> None:
    effects, decoder = Effects(), PlainDecoder()
    decoder.answer = DecodeError("malformed")

    async def skipped(record: ConsumedRecord) -> None:
        await operator.discard(database, GROUP, PLACE.topic, "rx_1", offset=record.offset, by=By("kim", "gone"))
        raise DecodeError("malformed")

    async with at_work(a_consumer(effects, Lanes(4)), database, decoder=decoder) as bench:
        await bench.feed_all([a_record(0, value=UNKNOWN), a_record(1)])
        assert await bench.parked() == [("rx_1", 0, "malformed"), ("rx_1", 1, "key_parked")]
        decoder.learn = skipped  # type: ignore[method-assign]  # of one instance
        await bench.request_release("rx_1")
        await bench.until_rows("select key from drx_consumer.parked_key", [])

    assert effects.kept == ["evt_1"]


async def test_a_partition_that_is_stopped_while_a_key_is_released_lets_the_release_end(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given up, it would begin anew after each restart, until it counts as one that kills processes."""
    monkeypatch.setattr(parking, "KEYS_MAX", 1)
    effects.refused = {"evt_0", "evt_1"}
    gate = Gate(effects, lambda event: event.id == "evt_0" and event.id not in effects.refused)
    log = [a_record(0), a_record(1, "rx_2")]
    await bench.feed_all(log[:1])
    effects.refused.remove("evt_0")
    before = effects.attempts.count("evt_0")
    await bench.request_release("rx_1")
    await gate.reached.wait()
    bench.processor.offer(PLACE, log[1:])
    await until(lambda: bench.processor.standing() == "parking_full")
    bench.processor._begin_release(bench.processor._partitions[PLACE], "rx_1")
    given_up = bench.processor.fenced(PLACE)
    gate.open()
    await bench.read_again(log)
    await bench.settled(2)

    assert (given_up, effects.attempts.count("evt_0") - before, effects.kept) == (False, 1, ["evt_0"])
    assert await bench.parked() == [("rx_2", 1, "refused")]


async def test_a_partition_goes_on_by_itself_when_another_key_has_left_the_lot(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lot is the group's: the key that leaves may be of another partition, and of another process."""
    monkeypatch.setattr(parking, "KEYS_MAX", 1)
    other = TopicPartition(PLACE.topic, 1)
    effects.refused = {"evt_0", "evt_1", "evt_2"}
    log = [a_record(1, "rx_2"), a_record(2, "rx_3")]
    await bench.feed_all([a_record(0, tp=other)], other)
    with capture_logs() as logs:
        await bench.feed(log)
        await until(lambda: bench.processor.standing() == "parking_full")
        await bench.processor._partitions[PLACE].idle()
    assert [each["event"] for each in logs].count("worker.partition_stopped") == 1
    effects.refused = {"evt_1"}
    await bench.request_release("rx_1")
    await bench.read_again(log)
    await bench.settled(3)

    assert await bench.parked() == [("rx_2", 1, "refused")]
    # Of two partitions, in any order: a record that was in hand at the stop may find evt_2 refused no more.
    assert sorted(effects.kept) == ["evt_0", "evt_2"]


@pytest.mark.parametrize("mode", [replace(each, window_bytes=20 * 2_048) for each in ALL_MODES.values()], ids=ALL_MODES)
async def test_a_partition_that_is_stopped_takes_no_room_from_the_others(
    bench: Bench, effects: Effects, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "EVENTS_OF_KEY_MAX", 1)
    other = TopicPartition(PLACE.topic, 1)
    effects.refused = {"evt_0"}
    log = [a_record(offset, f"rx_{offset % 2}") for offset in range(40)]
    await bench.adopt(other)
    await bench.feed(log)
    full = not bench.processor.room(other)
    await until(lambda: bench.processor.halted(PLACE))
    room = bench.processor.room(other)
    await bench.processor._partitions[PLACE].idle()
    stopped = bench.processor._partitions[PLACE]
    held = len(stopped.backlog) + sum(len(queue.records) for queue in stopped.queues.values())
    await operator.discard(database, GROUP, PLACE.topic, "rx_0", by=By("kim", "withdrawn"))
    await bench.read_again(log)
    await bench.settled(40)

    assert (full, room, held) == (True, True, 0)
    assert len(effects.kept) == 39


@pytest.mark.parametrize("mode", [Lanes(4, transactional=True), Lanes(4)], ids=["inside", "outside"])
async def test_a_partition_that_is_stopped_while_a_step_waits_ends_no_process(
    bench: Bench, effects: Effects, database: Database
) -> None:
    """The step waits for an operator's transaction that drops the key, and then finds the record unreadable."""
    effects.refused = {"evt_0"}
    await bench.feed_all([a_record(0)])
    async with database.transaction() as connection:
        await connection.execute("delete from drx_consumer.parked_event")
        await connection.execute("delete from drx_consumer.parked_key")
        bench.processor.offer(PLACE, [a_record(1, value=POISON)])
        await bench.until_rows("select count(*) from pg_locks where not granted", [(1,)])
        bench.processor._park_limit.stop(bench.processor._partitions[PLACE], ParkLimitError())
    await bench.until_rows('select "offset" from drx_consumer.parked_event', [(1,)])
    await bench.processor._partitions[PLACE].idle()

    assert not bench.failed


async def test_a_limit_met_where_the_key_is_parked_leaves_something_to_release(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the parked key rolled back with what did not fit, nobody could get the partition going."""
    monkeypatch.setattr(parking, "EVENTS_OF_KEY_MAX", 2)
    effects.refused = {"evt_1"}
    log = [a_record(0, "rx_2"), *(a_record(offset) for offset in range(1, 5))]
    with capture_logs() as logs:
        await bench.feed(log)
        await until(lambda: bench.processor.halted(PLACE))
    (line,) = [each for each in logs if each["event"] == "worker.partition_stopped"]
    assert (line["topic"], line["partition"], line["group"], line["code"]) == (*PLACE, GROUP, "parking_full")
    assert f"drx-consumer parked retry {GROUP} KEY --topic {PLACE.topic}" in line["hint"]
    await bench.settled(3)
    parked = await bench.parked()
    await until(lambda: bench.count("parking_full_partitions") == 1)
    assert bench.processor.standing() == "parking_full"
    effects.refused.clear()
    await bench.request_release("rx_1")
    await bench.read_again(log)
    await bench.settled(5)

    await until(lambda: bench.count("parking_full_partitions") == 0)
    assert bench.processor.standing() == "ok"
    assert parked == [("rx_1", 1, "refused"), ("rx_1", 2, "key_parked")]
    assert effects.kept == [f"evt_{offset}" for offset in range(5)]


@pytest.mark.parametrize("mode", [Batches(50, 0.005)])
async def test_the_key_that_is_one_too_many_takes_no_other_out_of_the_lot(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "KEYS_MAX", 1)
    effects.refused = {"evt_1", "evt_2"}

    log = [a_record(offset, f"rx_{offset}") for offset in range(4)]
    await bench.feed_all(log[:2])
    bench.processor.offer(PLACE, log[2:])
    await until(lambda: bench.processor.halted(PLACE))
    await bench.processor._partitions[PLACE].idle()

    assert (bench.processor.next_offset(PLACE), await bench.parked()) == (2, [("rx_1", 1, "refused")])
    assert (await bench.effects())[:1] == ["evt_0"]


@pytest.mark.parametrize("mode", [Batches(50, 0.005), Lanes(4, transactional=True)], ids=["batches", "lanes"])
async def test_a_row_that_another_has_locked_for_long_makes_a_partition_wait_and_not_dead(
    ledger_dsn: str, mode: Lanes | Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "WAITS_S", 0.1)
    effects = Effects()

    async with (
        a_database(ledger_dsn, lock_timeout_s=0.02) as database,
        at_work(a_consumer(effects, mode), database) as bench,
    ):
        async with database.transaction() as connection:
            await connection.execute("lock table effect in share mode")
            await bench.feed([a_record(0)])
            await until(lambda: bench.processor.waiting() == "degraded")
        await bench.settled(1)

        assert (bench.processor.waiting(), await bench.parked()) == ("ok", [])


async def test_a_release_that_makes_progress_does_not_wait(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "WAITS_S", 0.0)
    effects.refused = {"evt_0"}
    gate = Gate(effects, lambda event: event.id == "evt_2" and not effects.refused)
    await bench.feed_all([a_record(offset) for offset in range(4)])
    effects.refused.clear()
    idle = bench.processor.waiting()
    await bench.request_release("rx_1")
    await until(lambda: effects.attempts[-1:] == ["evt_2"])
    await until(lambda: bench.processor.waiting() == "degraded")
    gate.open()
    await bench.until_rows("select key from drx_consumer.parked_key", [])
    await until(lambda: bench.processor.waiting() == "ok")  # the row is gone before the process knows it

    assert (idle, effects.kept) == ("ok", [f"evt_{each}" for each in range(4)])


@pytest.mark.parametrize("mode", [Lanes(4)])
async def test_a_key_that_is_parked_is_progress(bench: Bench, effects: Effects) -> None:
    effects.refused = {"evt_1"}
    gate = Gate(effects, lambda event: event.id == "evt_0")
    await bench.feed([a_record(0)])
    await gate.reached.wait()
    before = bench.processor._partitions[PLACE]._progress_at
    bench.processor.offer(PLACE, [a_record(1, "rx_2")])
    await until(lambda: bench.outcome("parked") == 1)

    assert bench.processor._partitions[PLACE]._progress_at > before


async def test_a_release_that_hangs_waits_however_often_its_request_is_found(
    bench: Bench, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.refused = {"evt_0"}
    gate = Gate(effects, lambda _: not effects.refused)
    await bench.feed_all([a_record(0)])
    effects.refused.clear()
    bench.processor._partitions[PLACE]._progress_at -= partition.WAITS_S
    await bench.request_release("rx_1")
    await gate.reached.wait()
    assert bench.processor.waiting() == "ok", "a start is progress"
    monkeypatch.setattr(partition, "WAITS_S", 0.5)
    await until(lambda: bench.processor.waiting() == "degraded")
    gate.open()
    await bench.until_rows("select key from drx_consumer.parked_key", [])
    await until(lambda: bench.processor.waiting() == "ok")  # the row is gone before the process knows it
