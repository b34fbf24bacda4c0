import gc
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest

from bridge.errors import ConfigError, TransientError
from bridge.event import Event
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.api import ATTEMPTS, Batches, Consumer, Context, Lanes
from consumers.postgres.pool import Database
from consumers.runtime import operator, parking
from consumers.runtime.circuit import OPEN_AFTER
from consumers.runtime.operator import By
from consumers.runtime.partition import KeyQueue, Partition
from tests.kafka import until
from tests.logs import capture_logs
from tests.settling import GROUP, PLACE, Bench, Effects, a_consumer, a_record, at_work

# Failures of one record, more than any limit of attempts.
MANY = 30


@pytest.fixture
def consumer(effects: Effects, mode: Lanes | Batches) -> Consumer:
    return a_consumer(effects, mode, ping=effects.ping)


def bad_keys_fail(event: Event, _: int) -> Exception | None:
    return ConnectionRefusedError() if event.key.startswith("bad") else None


async def test_a_sink_that_refuses_connections_is_waited_for(bench: Bench, effects: Effects) -> None:
    """Nobody has translated the error of the operating system; two dozen keys were parked for it, then all stood."""
    effects.down = True
    await bench.feed([a_record(offset, f"rx_{offset % 30}") for offset in range(60)])
    await until(lambda: bench.count("circuit_state", state="open") == 1)
    at_opening = len(effects.attempts)
    pings = effects.pings
    await until(lambda: effects.pings > pings + 3)
    tried = len(effects.attempts) - at_opening
    effects.down = False
    await bench.settled(60)

    assert tried <= 4, "what was called when the circuit opened may still fail, and no more"
    assert (await bench.parked(), bench.count("circuit_state", state="open")) == ([], 0)
    assert bench.outcome("retry") == 0
    assert sorted(effects.kept, key=lambda each: int(each[4:])) == [f"evt_{offset}" for offset in range(60)]


@pytest.mark.parametrize("others", [0, 30])
async def test_what_every_record_would_meet_parks_none_however_often_and_however_alone(
    bench: Bench, effects: Effects, others: int
) -> None:
    effects.fail = bad_keys_fail
    await bench.feed([a_record(0, "bad"), *(a_record(number, f"rx_{number}") for number in range(1, 1 + others))])
    await until(lambda: effects.attempts.count("evt_0") > MANY and bench.outcome("applied") == others)
    parked = await bench.parked()
    effects.fail = lambda *_: None
    await bench.settled(1 + others)

    assert (parked, await bench.parked()) == ([], [])


async def test_what_may_be_anybodys_fault_counts_only_while_others_pass(bench: Bench, effects: Effects) -> None:
    effects.fail = lambda event, _: TransientError("http_500") if event.key.startswith("bad") else None
    await bench.feed([a_record(0, "bad")])
    await until(lambda: len(effects.attempts) > 2 * ATTEMPTS)
    alone = await bench.parked()
    end = await bench.others_pass(1)
    await bench.settled(end)

    assert (alone, await bench.parked()) == ([], [("bad", 0, "http_500")])


@pytest.mark.parametrize("attempts", [1, 2 * ATTEMPTS])
async def test_a_consumer_says_after_how_many_attempts_a_key_is_parked(
    consumer: Consumer, database: Database, effects: Effects, attempts: int
) -> None:
    effects.fail = lambda event, _: TransientError("http_500") if event.key.startswith("bad") else None
    async with at_work(replace(consumer, attempts=attempts), database) as bench:
        await bench.feed([a_record(0, "bad")])
        await bench.settled(await bench.others_pass(1))

        rows = await bench.rows("select attempts from drx_consumer.parked_key")
    assert rows[0][0] >= attempts
    assert rows == [(effects.numbers["evt_0"],)]
    assert rows[0][0] == 1 or attempts > 1


async def test_a_record_that_the_sink_was_not_asked_about_is_no_pass_of_it(bench: Bench, effects: Effects) -> None:
    """Neither one that was applied before, nor one that its handler refuses by itself, speaks for the sink."""
    others = range(2, 6 + ATTEMPTS)
    effects.refused = {f"evt_{offset}" for offset in others[::2]}
    effects.fail = lambda event, _: TransientError("http_500") if event.key == "bad" else None

    def tried(times: int) -> bool:
        return effects.attempts.count("evt_1") >= times

    await bench.feed_all([a_record(0, "first")])
    bench.processor.offer(PLACE, [a_record(1, "bad")])
    for offset in others:
        other = a_record(offset, "first", id="evt_0") if offset % 2 else a_record(offset, f"key_{offset}")
        bench.processor.offer(PLACE, [other])
        await until(partial(tried, effects.attempts.count("evt_1") + 1))
    await until(lambda: bench.outcome("parked") >= len(others[::2]))

    assert [key for key, *_ in await bench.parked()] == [f"key_{offset}" for offset in others[::2]]


@pytest.mark.parametrize("mode", [Lanes(4)])
@pytest.mark.parametrize("systemic", [True, False])
async def test_a_sink_that_answers_nothing_but_pings_is_tried_by_one_record_at_a_time(
    bench: Bench, effects: Effects, *, systemic: bool
) -> None:
    """A record that is held has made no attempt."""
    effects.fail = lambda *_: TransientError("http_503", systemic=systemic)
    await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(40)])
    await until(lambda: bench.count("circuit_state", state="open") == 1)
    await bench.processor._partitions[PLACE].idle()
    tried, pings = len(effects.attempts), effects.pings
    await until(lambda: effects.pings > pings + 3)

    assert 0 < len(effects.attempts) - tried <= effects.pings - pings
    assert bench.count("circuit_state", state="open") == 1
    effects.fail, effects.refused = lambda *_: None, {"evt_39"}
    await bench.settled(40)
    assert bench.count("circuit_state", state="open") == 0
    assert await bench.rows("select key, attempts from drx_consumer.parked_event") == [("rx_39", 1)]


@pytest.mark.parametrize("mode", [Lanes(4)])
async def test_a_partition_that_is_lost_takes_no_trial_from_the_others(bench: Bench, effects: Effects) -> None:
    other = TopicPartition(PLACE.topic, 1)
    effects.down = True
    await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(2 * OPEN_AFTER)])
    await until(lambda: bench.count("circuit_state", state="open") == 1)
    await bench.feed([a_record(0, id="evt_other", tp=other)], other)
    partitions = bench.processor._partitions.all()
    await until(lambda: all(queue.held for each in partitions for queue in each.queues.values()))
    bench.processor.forget([PLACE])
    effects.down, pings = False, effects.pings
    await bench.settled(1, other)

    assert effects.pings - pings <= 2


def held_of_closed() -> int:
    """Return how many partitions, queues and records of closed partitions are still held."""
    gc.collect()
    kinds = (Partition, KeyQueue, ConsumedRecord)
    return sum(isinstance(each, kinds) for each in gc.get_objects())


async def test_nothing_is_held_of_the_partitions_that_a_group_took_away_while_the_sink_does_not_answer(
    bench: Bench, effects: Effects
) -> None:
    effects.down = True
    before = held_of_closed()
    for _ in range(50):
        await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(2 * OPEN_AFTER)])
        await until(lambda: bench.count("circuit_state", state="open") == 1)
        bench.processor.forget([PLACE])

    await until(lambda: held_of_closed() <= before)


async def test_a_few_keys_that_the_sink_refuses_as_it_would_any_stop_no_other(
    consumer: Consumer, database: Database, effects: Effects
) -> None:
    """As by a rule of a firewall: it answers pings, and the refused keys alone never stop failing."""
    effects.fail = bad_keys_fail
    bad = 2 * OPEN_AFTER

    with capture_logs() as logs:
        async with at_work(consumer, database) as bench:
            await bench.feed([a_record(offset, f"bad_{offset}") for offset in range(bad)])
            await until(lambda: bench.count("circuit_state", state="open") == 1)
            for offset in range(bad, bad + 5):
                await effects.tried(bad)
                bench.processor.offer(PLACE, [a_record(offset, f"rx_{offset}")])
                await until(partial(effects.has, f"evt_{offset}"))
            await until(lambda: len(set(effects.attempts)) == bad + 5)
            await effects.tried(3 * bad)

            assert bench.count("circuit_state", state="open") == 0

    refused = [each["offset"] for each in logs if each["event"] == "worker.sink_failed" and "event_id" in each]
    assert sorted(refused) == list(range(bad)), "each refused record once"
    assert {each["code"] for each in logs if each["event"] == "worker.sink_failed"} == {"connection_refused"}


@pytest.mark.parametrize("mode", [Lanes(4, transactional=True), Lanes(4)], ids=["inside", "outside"])
async def test_an_event_that_calls_nobody_says_nothing_of_the_sink(database: Database, mode: Lanes) -> None:
    """As one that a filter leaves out: between those that fail it would keep the circuit closed, or close it."""
    effects = Effects()

    async def handle(event: Event, context: Context) -> None:
        if not event.key.startswith("quiet"):
            await context.resource(event, context)

    consumer = Consumer(GROUP, [PLACE.topic], mode=mode, ping=effects.ping, around=nullcontext)
    consumer.handler(handle)
    effects.fail = lambda *_: ConnectionRefusedError()
    count = 2 * OPEN_AFTER
    log = [a_record(offset, f"{'quiet' if offset % 2 else 'rx'}_{offset}") for offset in range(2 * count)]

    async with at_work(consumer, database, resource=effects.one) as bench:
        await bench.feed(log)
        await until(lambda: bench.outcome("applied") == count and bench.count("circuit_state", state="open") == 1)
        await effects.tried(5)
        still = bench.count("circuit_state", state="open")
        effects.fail = lambda *_: None
        await bench.settled(2 * count)

        assert (still, bench.count("circuit_state", state="open")) == (1, 0)


async def test_an_operator_sets_keys_aside_while_the_sink_is_away(
    bench: Bench, effects: Effects, database: Database
) -> None:
    effects.fail = lambda *_: TransientError("http_403", systemic=True)
    keys = [f"rx_{number}" for number in range(2 * OPEN_AFTER)]
    await bench.feed([a_record(offset, key) for offset, key in enumerate(keys)])
    await until(lambda: bench.count("circuit_state", state="open") == 1)
    effects.down = True
    for key in keys:
        await operator.park(database, GROUP, PLACE.topic, key, partition=0, by=By("ann", "refused"))
    await bench.settled(len(keys))

    assert len(await bench.parked()) == len(keys)


async def test_an_operator_sets_a_key_aside_that_the_sink_never_takes(
    bench: Bench, effects: Effects, database: Database
) -> None:
    """Others fail too, so nobody but a person can tell that it is this key's own fault, or worth a gap."""
    effects.fail = bad_keys_fail
    log = [a_record(offset, ("rx_0", "bad_1", "bad_2")[offset % 3]) for offset in range(6)]
    park = partial(operator.park, database, GROUP, PLACE.topic, by=By("ann", "refused by the service"))
    await bench.feed(log)
    await until(lambda: effects.attempts.count("evt_1") > 1)
    await park("bad_1")
    await bench.until_rows(
        'select key, "offset" from drx_consumer.parked_event order by 2', [("bad_1", 1), ("bad_1", 4)]
    )
    await park("bad_2", partition=0)
    await bench.settled(6)
    effects.fail = lambda *_: None
    await operator.request_release(database, GROUP, parking.Filters(keys=["bad_1"]), by=By("ann"))
    await bench.until_rows("select key from drx_consumer.parked_key", [("bad_2",)])

    assert effects.kept[-2:] == ["evt_1", "evt_4"]
    assert await bench.rows(
        "select verb, actor, reason, key, part from drx_consumer.audit order by number limit 2"
    ) == [("park", "ann", "refused by the service", "bad_1", 0), ("park", "ann", "refused by the service", "bad_2", 0)]
    with pytest.raises(ConfigError, match="parked already"):
        await park("bad_2")


@pytest.mark.parametrize("verb", ["retry", "drop_key"])
async def test_a_key_that_was_set_aside_and_never_came_can_be_let_go(
    bench: Bench, effects: Effects, database: Database, verb: str
) -> None:
    await bench.feed_all([a_record(0)])
    await operator.park(database, GROUP, PLACE.topic, "rx_1", by=By("ann", "by mistake"))
    if verb == "retry":
        await operator.request_release(database, GROUP, parking.Filters(keys=["rx_1"]), by=By("ann"))
    else:
        await operator.discard(database, GROUP, PLACE.topic, "rx_1", by=By("ann", "by mistake"))
    await bench.until_rows("select key from drx_consumer.parked_key", [])
    bench.processor.offer(PLACE, [a_record(1)])
    await bench.settled(2)

    assert effects.kept == ["evt_0", "evt_1"]


async def test_a_key_of_a_partition_that_is_not_known_is_not_guessed(database: Database) -> None:
    with pytest.raises(ConfigError, match="--partition"):
        await operator.park(database, GROUP, PLACE.topic, "rx_1", by=By("ann", "void"))
