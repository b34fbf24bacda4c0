import asyncio
from dataclasses import replace

import pytest

from bridge.errors import PermanentError, TransientError
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import ATTEMPTS, Batches, Consumer, Lanes
from consumers.postgres.pool import Database
from consumers.runtime.batches import BATCHES_MAX
from consumers.runtime.decoding import UnknownTypeError
from tests.kafka import until
from tests.settling import PLACE, POISON, Bench, Effects, a_consumer, a_record, at_work

ONES = Batches(50, 0.005)


@pytest.mark.parametrize(
    "mode", [Batches(records=1_000, wait_s=3_600.0, window_records=1_000, window_bytes=20 * 2_048)]
)
async def test_a_batch_waits_for_no_more_than_the_window_takes_in(bench: Bench) -> None:
    """It would else stand still for as long as it may wait, with all partitions."""
    await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(30)])
    await bench.until_rows("select count(*) > 0 from effect", [(True,)])


@pytest.mark.parametrize("mode", [Batches(records=30, wait_s=3_600.0, window_records=30, window_bytes=70 * 2_048)])
async def test_where_partitions_fill_the_window_together_the_largest_batches_make_room(
    bench: Bench, effects: Effects
) -> None:
    """If each went with what it has, there would be many small batches."""
    small, *large = (TopicPartition(PLACE.topic, number) for number in range(1 + BATCHES_MAX))
    logs = {tp: [a_record(at, id=f"evt_{tp.partition}_{at}", tp=tp) for at in range(30)] for tp in (small, *large)}
    for tp in (small, *large):
        await bench.adopt(tp)
    for tp in large:
        bench.processor.offer(tp, logs[tp][:25])
    bench.processor.offer(small, logs[small][:5])
    for tp in large:
        await bench.settled(25, tp)
    bench.processor.offer(small, logs[small][5:])
    await bench.settled(30, small)

    *first, last = [(int(ids[0].split("_")[1]), len(ids)) for ids in effects.batches]
    assert (sorted(first), last) == ([(tp.partition, 25) for tp in large], (0, 30))


@pytest.mark.parametrize("mode", [Batches(50, 0.05)])
async def test_a_sink_that_is_away_for_long_leaves_a_batch_whole_too(
    consumer: Consumer, effects: Effects, database: Database
) -> None:
    """One batch alone does not open the circuit before it has been tried so often that it would be taken apart."""
    away, pings = TransientError("full", systemic=True), 0
    effects.fail = lambda *_: away if pings >= 0 else None

    async def ping(_: object) -> None:
        nonlocal pings
        if pings >= 0 and len(effects.batches) >= ATTEMPTS:
            pings += 1
            raise away

    async with at_work(replace(consumer, ping=ping), database) as bench:
        await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(20)])
        await until(lambda: bench.count("circuit_state", state="open") == 1)
        seen = pings
        await until(lambda: pings > seen + 1)  # one may still be of the attempt that has opened the circuit
        pings = -1
        await bench.settled(20)

        assert await bench.parked() == []
    assert len(effects.batches) > ATTEMPTS
    assert {len(ids) for ids in effects.batches} == {20}


@pytest.mark.parametrize("mode", [Batches(50, 0.05)])
async def test_a_batch_stays_one_but_for_a_key_whose_id_came_with_another_body(bench: Bench, effects: Effects) -> None:
    """Thousands of records would else be handled one by one, for one of them."""
    conflict = [a_record(20, "rx_2", id="evt_0", body="other"), a_record(21, "rx_2"), a_record(22, "rx_3")]
    await bench.feed_all([a_record(0)])
    bench.processor.offer(PLACE, [*(a_record(offset, f"rx_{offset}") for offset in range(1, 20)), *conflict])
    await bench.settled(23)

    assert await bench.parked() == [("rx_2", 20, "id_conflict"), ("rx_2", 21, "key_parked")]
    assert bench.count("id_conflicts_total", source="drx") == 1
    first, *others = effects.batches
    assert first == ["evt_0"]
    assert sorted(others, key=len) == [["evt_2"], [f"evt_{number}" for number in (1, *range(3, 20), 22)]]


@pytest.mark.parametrize(
    ("failure", "code", "cls"),
    [
        (PermanentError("refused"), "refused", "permanent"),
        (ValueError("rx_1"), "unexpected", "bug"),
        (SystemExit("rx_1"), "unexpected", "bug"),
        (BaseException("rx_1"), "unexpected", "bug"),  # as a panic of a library in Rust
    ],
)
@pytest.mark.parametrize("mode", [ONES])
async def test_a_record_that_never_succeeds_parks_its_key_alone(
    bench: Bench, effects: Effects, failure: BaseException, code: str, cls: str
) -> None:
    effects.fail = lambda event, _: failure if event.id == "evt_1" else None
    log = [a_record(0), a_record(1), a_record(2, "rx_2"), a_record(3)]
    await bench.feed_all(log)

    assert await bench.parked() == [("rx_1", 1, code), ("rx_1", 3, "key_parked")]
    assert sorted(await bench.effects()) == ["evt_0", "evt_2"]
    assert bench.count("park_total", **{"class": cls}) == 1
    assert bench.count("consumer_bugs_total") == (cls == "bug")


@pytest.mark.parametrize("mode", [ONES])
async def test_a_transient_failure_holds_its_key_only(bench: Bench, effects: Effects) -> None:
    """What lies above the held record is settled and kept as such, while progress stays below it."""
    held = asyncio.Event()
    effects.fail = lambda event, _: None if event.id != "evt_1" or held.is_set() else TransientError("conflict")
    await bench.feed([a_record(0), a_record(1), a_record(2, "rx_2"), a_record(3)])
    await until(lambda: bench.outcome("applied") == 2)
    standing = await bench.rows(
        'select next_offset from drx_consumer.progress union all select "offset" from drx_consumer.settled'
    )
    held.set()
    await bench.settled(4)

    there = await bench.effects()
    assert [len(ids) for ids in effects.batches].count(4) == 1, "taken apart at once"
    assert standing == [(1,), (2,)]
    assert sorted(there[:2]) == ["evt_0", "evt_2"]
    assert there[2:] == ["evt_1", "evt_3"]
    await bench.until_rows('select "offset" from drx_consumer.settled', [])


@pytest.mark.parametrize(
    ("unknown", "parked"), [({"unknown": "skip"}, []), ({}, [("rx_1", 0, "unknown_record")])], ids=["skip", "default"]
)
@pytest.mark.parametrize("mode", [Batches(50, 0.005), Lanes(2, transactional=True), Lanes(2)], ids=str)
async def test_a_type_this_release_does_not_know(
    database: Database, unknown: dict[str, str], parked: list[tuple[str, int, str]], mode: Batches | Lanes
) -> None:
    """Skipped, it is counted once, whatever becomes of the batch it is in; one that nobody wants is not."""
    effects = Effects("evt_3")
    consumer = a_consumer(effects, mode, types=["prescription.*"], **unknown)
    log = [a_record(0, type="prescription.foreseen"), a_record(1, "rx_2", type="made.up"), a_record(2, "rx_2")]

    async with at_work(consumer, database) as bench:
        bench.decoder.unknown.update({"prescription.foreseen", "made.up"})
        await bench.feed_all([*log, a_record(3, "rx_3"), a_record(4, value=POISON)])

        then = ("rx_1", 4, "key_parked" if parked else "malformed")
        assert await bench.parked() == [*parked, ("rx_3", 3, "refused"), then]
        assert bench.outcome("skipped") == (1 if unknown else 0)


async def test_a_consumer_may_fail_for_a_type_it_does_not_know(database: Database) -> None:
    async with at_work(a_consumer(Effects(), ONES, unknown="fail"), database) as bench:
        bench.decoder.unknown.add("made.up")
        await bench.feed([a_record(0, type="made.up")])
        await until(lambda: bench.failed)

        with pytest.raises(UnknownTypeError):
            bench.task.result()  # type: ignore[union-attr]  # it has failed
