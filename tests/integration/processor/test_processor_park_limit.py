from typing import Any

import pytest

from bridge.errors import PermanentError
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import Batches, Consumer, Lanes
from consumers.postgres.pool import Database
from consumers.runtime.operator import By, resume
from consumers.runtime.park_limit import ParkCounter
from tests.kafka import until
from tests.settling import GROUP, PLACE, POISON, Bench, Effects, a_consumer, a_record, at_work

OTHER = TopicPartition(PLACE.topic, 1)
LOG = [a_record(offset, f"rx_{offset}") for offset in range(200)]
# Ten of the last hundred.
ALLOWED = 10


@pytest.fixture
def effects() -> Effects:
    effects = Effects()
    effects.fail = lambda event, _: PermanentError("refused") if int(event.id[4:]) % 2 else None
    return effects


@pytest.fixture
def options() -> dict[str, Any]:
    return a_counter()


def a_counter() -> dict[str, Any]:
    return {"park_counter": ParkCounter(last=100, percent=10)}


async def until_told(bench: Bench) -> None:
    await bench.until_rows("select opened_at is not null from drx_consumer.park_breaker", [(True,)])


async def test_a_flood_of_bad_records_halts_every_partition_instead_of_filling_the_lot(bench: Bench) -> None:
    await bench.adopt(OTHER)
    await bench.feed(LOG)
    await until(lambda: bench.processor.halted(PLACE))

    await bench.processor._partitions[PLACE].idle()
    assert (bench.processor.halted(OTHER), bench.failed) == (True, False)
    assert (bench.processor.standing(), bench.count("park_breaker_open")) == ("park_breaker_open", 1)
    assert len(await bench.parked()) == ALLOWED


@pytest.mark.parametrize("mode", [Lanes(8, transactional=True), Lanes(8)], ids=["inside", "outside"])
async def test_lanes_that_park_at_the_same_moment_park_no_more_than_is_allowed(bench: Bench, effects: Effects) -> None:
    effects.fail = lambda *_: PermanentError("refused")
    await bench.feed(LOG)
    await until_told(bench)
    await bench.processor._partitions[PLACE].idle()

    assert len(await bench.parked()) == ALLOWED


@pytest.mark.parametrize("mode", [Lanes(8)])
async def test_records_that_were_parked_before_many_others_count_no_more(bench: Bench, effects: Effects) -> None:
    effects.fail = lambda event, _: None if 10 <= int(event.id[4:]) < 150 else PermanentError("refused")
    await bench.adopt()
    for start, end in ((0, 10), (10, 150), (150, 160)):
        bench.processor.offer(PLACE, LOG[start:end])
        await bench.settled(end)

    assert (bench.processor.standing(), len(await bench.parked())) == ("ok", 2 * ALLOWED)


async def test_a_restart_does_not_reopen_the_flood(
    consumer: Consumer, database: Database, mode: Lanes | Batches
) -> None:
    async with at_work(consumer, database, **a_counter()) as bench:
        await bench.feed(LOG)
        await until_told(bench)
    again = Effects()

    async with at_work(a_consumer(again, mode), database, **a_counter()) as bench:
        await bench.feed(LOG)

        assert (bench.processor.halted(PLACE), bench.count("park_breaker_open")) == (True, 1)
    assert again.attempts == []


@pytest.mark.parametrize("mode", [Lanes(4)])
async def test_junk_without_a_key_and_releases_that_fail_again_stop_nothing(bench: Bench) -> None:
    """Another producer writes junk: no event of ours is without a key. A release parks no further record."""
    log = [*LOG[: 2 * ALLOWED], *(a_record(offset, None, value=POISON) for offset in range(2 * ALLOWED, 4 * ALLOWED))]
    await bench.feed_all(log)
    await bench.rows("update drx_consumer.parked_key set release_requested_at = clock_timestamp() returning 1")
    await bench.until_rows("select count(*) from drx_consumer.parked_key where attempts = 2", [(3 * ALLOWED,)])

    assert bench.processor.standing() == "ok"
    assert len(await bench.parked()) == 3 * ALLOWED


async def test_an_operator_resumes_the_group_and_what_was_parked_counts_no_more(
    bench: Bench, effects: Effects, database: Database
) -> None:
    await bench.feed(LOG)
    await until_told(bench)
    effects.fail = lambda event, _: PermanentError("refused") if event.id == "evt_199" else None
    await resume(database, GROUP, by=By("ann", "mended"))
    await bench.read_again(LOG)
    await bench.settled(200)

    assert (bench.processor.standing(), bench.count("park_breaker_open")) == ("ok", 0)
    assert len(await bench.parked()) == ALLOWED + 1
    assert len(effects.kept) == 200 - ALLOWED - 1
    assert await bench.rows("select verb, actor, reason from drx_consumer.audit") == [("resume", "ann", "mended")]


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_the_other_processes_of_the_group_stand_still_too(bench: Bench, database: Database) -> None:
    async with at_work(bench.consumer, database, **a_counter()) as other:
        await other.adopt(OTHER)
        await bench.feed(LOG)
        await until(lambda: other.processor.halted(OTHER))

        assert other.count("park_breaker_open") == 1


@pytest.mark.parametrize("mode", [Lanes(1)])
async def test_a_release_that_is_asked_for_waits_for_the_breaker(bench: Bench) -> None:
    """The partition is not even claimed again for it, over and over."""
    await bench.feed(LOG)
    await until_told(bench)
    await bench.request_release("rx_1")
    bench.processor._begin_release(bench.processor._partitions[PLACE], "rx_1")

    assert bench.processor.fenced(PLACE) is False
