"""A sink that is away, or answers only some of the time, parks nothing; a record that fails alone is parked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest

from bridge.errors import ConfigError, TransientError
from bridge.event import Event
from consumers.api import Batches, Consumer, Lanes
from consumers.postgres.pool import Database
from consumers.runtime import operator
from consumers.runtime.circuit import OPEN_AFTER, OWN_FAILURES, OWN_FAILURES_ALONE
from tests.kafka import HANG_S, until
from tests.settling import GROUP, PLACE, Bench, Effects, a_database, a_record, at_work

MODES = pytest.mark.parametrize(
    "mode", [Batches(50, 0.005), Lanes(4, transactional=True), Lanes(4)], ids=["batches", "inside", "outside"]
)
FAILURES = [
    ConnectionRefusedError(),
    TimeoutError(),
    aiohttp.ServerDisconnectedError(),
    TransientError("http_503", systemic=True),
]


@pytest.fixture
async def database(ledger_dsn: str) -> AsyncIterator[Database]:
    async with a_database(ledger_dsn) as opened:
        yield opened


def a_consumer(effects: Effects, mode: Lanes | Batches, *, pings: bool = True, timeout_s: float = 30.0) -> Consumer:
    consumer = Consumer(GROUP, [PLACE.topic], mode=mode, handler_timeout_s=timeout_s)
    consumer.handler(effects.batch if isinstance(mode, Batches) else effects.one)
    consumer.ping = effects.ping if pings else None
    return consumer


def bad_keys_fail(event: Event, _: int) -> Exception | None:
    return ConnectionRefusedError() if event.key.startswith("bad") else None


async def offer_more(bench: Bench, offset: int, *, parked: int) -> int:
    """Offer sound records one by one until `parked` keys are parked; return the next offset."""
    async with asyncio.timeout(HANG_S):
        while len(await bench.parked()) < parked:
            if bench.processor.room(PLACE) and not bench.processor.halted(PLACE):
                bench.processor.offer(PLACE, [a_record(offset, f"rx_{offset}")])
                offset += 1
            await asyncio.sleep(0.01)
    return offset


@MODES
async def test_a_sink_that_refuses_connections_is_waited_for(database: Database, mode: Lanes | Batches) -> None:
    """Nobody has translated the error of the operating system; two dozen keys were parked for it, then all stood."""
    effects = Effects()
    effects.down = True

    async with at_work(a_consumer(effects, mode), database) as bench:
        await bench.feed([a_record(offset, f"rx_{offset % 30}") for offset in range(60)])
        await until(lambda: bench.processor.halted(PLACE))
        at_opening = len(effects.attempts)
        pings = effects.pings
        await until(lambda: effects.pings > pings + 3)
        tried = len(effects.attempts) - at_opening
        effects.down = False
        await bench.settled(60)

        assert tried <= 4, "what was called when the circuit opened may still fail, and no more"
        assert (await bench.parked(), bench.processor.halted(PLACE)) == ([], False)
        assert bench.outcome("retry") == 0
        assert sorted(effects.kept, key=lambda each: int(each[4:])) == [f"evt_{offset}" for offset in range(60)]


@MODES
@pytest.mark.parametrize("percent", [1, 10, 30, 50, 70])
async def test_a_brown_out_parks_nothing_and_is_worked_through(
    database: Database, mode: Lanes | Batches, percent: int
) -> None:
    """`percent` of the calls fail, pings too, and each key goes on in order at the pace of the sink."""
    rng = random.Random(percent)  # noqa: S311 - no key
    effects = Effects()
    effects.fail = lambda *_: rng.choice(FAILURES) if rng.randrange(100) < percent else None
    consumer = a_consumer(effects, mode)
    records = 300

    async def ping(resource: object) -> None:
        del resource
        effects.pings += 1
        if rng.randrange(100) < percent:
            raise TimeoutError

    consumer.ping = ping
    async with at_work(consumer, database) as bench:
        await bench.feed([a_record(offset, f"rx_{offset % 50}") for offset in range(records)])
        await bench.settled(records)

        assert (await bench.parked(), bench.outcome("retry")) == ([], 0)
    for key in range(50):
        of_key = [event for event in effects.kept if int(event[4:]) % 50 == key]
        assert of_key == [f"evt_{offset}" for offset in range(key, records, 50)]
    if isinstance(mode, Lanes):
        assert len(effects.attempts) < 2 * records * 100 / (100 - percent), "calls beyond those that had to fail"


@pytest.mark.parametrize("percent", [50, 70])
async def test_a_brown_out_that_pings_do_not_see_parks_nothing_either(database: Database, percent: int) -> None:
    """The health page of a service answers, whatever becomes of its writes."""
    rng = random.Random(percent)  # noqa: S311 - no key
    effects = Effects()
    effects.fail = lambda *_: TransientError("http_503", systemic=True) if rng.randrange(100) < percent else None

    async with at_work(a_consumer(effects, Lanes(4)), database) as bench:
        await bench.feed([a_record(offset, f"rx_{offset % 50}") for offset in range(300)])
        await bench.settled(300)

        assert await bench.parked() == []


@MODES
@pytest.mark.parametrize("bad", [1, 3])
async def test_records_that_fail_where_others_pass_are_parked(
    database: Database, mode: Lanes | Batches, bad: int
) -> None:
    effects = Effects()
    effects.fail = bad_keys_fail

    async with at_work(a_consumer(effects, mode), database) as bench:
        await bench.feed([a_record(number, f"bad_{number}") for number in range(bad)])
        end = await offer_more(bench, bad, parked=bad)
        await bench.settled(end)

        assert await bench.parked() == [(f"bad_{number}", number, "connection_refused") for number in range(bad)]
        assert bench.count("circuit_state", state="closed") == 1
        assert all(effects.attempts.count(f"evt_{number}") >= OWN_FAILURES for number in range(bad))


@MODES
async def test_records_that_fail_alone_are_parked_although_the_window_above_them_is_settled(
    database: Database, mode: Lanes | Batches
) -> None:
    """More than a window of others may be settled above: it is they that tell whose fault it is."""
    effects = Effects()
    effects.fail = bad_keys_fail

    async with at_work(a_consumer(effects, mode), database) as bench:
        bench.processor._partitions._window_records = 8
        await bench.feed([a_record(number, f"bad_{number}") for number in range(3)])
        end = await offer_more(bench, 3, parked=3)
        await bench.settled(end)

        assert end > 8


@MODES
async def test_a_record_that_fails_alone_on_a_quiet_topic_is_parked_while_the_sink_answers_pings(
    database: Database, mode: Lanes | Batches
) -> None:
    effects = Effects()
    effects.fail = bad_keys_fail

    async with at_work(a_consumer(effects, mode), database) as bench:
        await bench.feed([a_record(0, "bad")])
        await bench.settled(1)

        assert await bench.parked() == [("bad", 0, "connection_refused")]
        assert len(effects.attempts) >= OWN_FAILURES_ALONE
        assert effects.pings > 0


async def test_a_record_that_fails_alone_waits_while_the_ping_fails(database: Database) -> None:
    effects = Effects()
    effects.fail = bad_keys_fail
    effects.down = True

    async with at_work(a_consumer(effects, Lanes(4)), database) as bench:
        await bench.feed([a_record(0, "bad")])
        await until(lambda: bench.processor.halted(PLACE))
        await until(lambda: effects.pings > OPEN_AFTER + OWN_FAILURES_ALONE)

        assert (bench.processor.next_offset(PLACE), await bench.parked()) == (0, [])


async def test_without_a_ping_a_record_that_fails_alone_waits_for_others_to_compare_with(database: Database) -> None:
    """The database answers, and that says nothing of the service that the handler calls."""
    effects = Effects()
    effects.fail = bad_keys_fail

    async with at_work(a_consumer(effects, Lanes(4), pings=False), database) as bench:
        await bench.feed([a_record(0, "bad")])
        await until(lambda: len(effects.attempts) > OWN_FAILURES_ALONE + OWN_FAILURES)
        before = await bench.parked()
        end = await offer_more(bench, 1, parked=1)
        await bench.settled(end)

        assert (before, await bench.parked()) == ([], [("bad", 0, "connection_refused")])


async def test_a_quarter_of_the_keys_that_fail_wait_for_the_sink_or_an_operator(database: Database) -> None:
    """One shard of the sink is away: none of its records is at fault, and the others go on."""
    effects = Effects()
    effects.fail = bad_keys_fail
    log = [a_record(offset, f"{'rx' if offset % 4 else 'bad'}_{offset}") for offset in range(200)]

    async with at_work(a_consumer(effects, Lanes(4)), database) as bench:
        await bench.feed(log)
        await until(lambda: bench.outcome("applied") == 150)
        await until(lambda: max(Counter(effects.attempts).values()) > OWN_FAILURES_ALONE)
        parked = await bench.parked()
        effects.fail = lambda *_: None
        await bench.settled(200)

        assert (parked, await bench.parked()) == ([], [])


@pytest.mark.parametrize("mode", [Lanes(2, transactional=True), Lanes(2)], ids=["inside", "outside"])
async def test_handlers_that_time_out_everywhere_park_nothing(database: Database, mode: Lanes) -> None:
    effects = Effects()
    answers = asyncio.Event()

    async def hang(event: Event) -> None:
        del event
        await answers.wait()

    effects.before = hang
    async with at_work(a_consumer(effects, mode, timeout_s=0.02), database) as bench:
        await bench.feed([a_record(offset, f"rx_{offset}") for offset in range(6)])
        await until(lambda: len(effects.attempts) > 2 * OPEN_AFTER)
        parked = await bench.parked()
        answers.set()
        await bench.settled(6)

        assert (parked, await bench.parked()) == ([], [])


@MODES
async def test_an_operator_sets_a_key_aside_that_the_sink_never_takes(
    database: Database, mode: Lanes | Batches
) -> None:
    """Others fail too, so nobody but a person can tell that it is this key's own fault, or worth a gap."""
    effects = Effects()
    effects.fail = bad_keys_fail
    log = [a_record(offset, ("rx_0", "bad_1", "bad_2")[offset % 3]) for offset in range(6)]
    park = partial(operator.park, database, GROUP, PLACE.topic, actor="ann", reason="refused by the service")

    async with at_work(a_consumer(effects, mode), database) as bench:
        await bench.feed(log)
        await until(lambda: effects.attempts.count("evt_1") > 1)
        await park("bad_1")
        await bench.until_rows(
            'select key, "offset" from drx_consumer.parked_event order by 2', [("bad_1", 1), ("bad_1", 4)]
        )
        await park("bad_2", partition=0)
        await bench.settled(6)
        effects.fail = lambda *_: None
        await operator.request_release(database, GROUP, [(PLACE.topic, "bad_1")], actor="ann")
        await bench.until_rows("select key from drx_consumer.parked_key", [("bad_2",)])

        assert effects.kept[-2:] == ["evt_1", "evt_4"]
        assert await bench.rows(
            "select verb, actor, reason, key, part from drx_consumer.audit order by number limit 2"
        ) == [
            ("park", "ann", "refused by the service", "bad_1", 0),
            ("park", "ann", "refused by the service", "bad_2", 0),
        ]
        with pytest.raises(ConfigError, match="parked already"):
            await park("bad_2")


@MODES
@pytest.mark.parametrize("verb", ["retry", "drop_key"])
async def test_a_key_that_was_set_aside_and_never_came_can_be_let_go(
    database: Database, mode: Lanes | Batches, verb: str
) -> None:
    effects = Effects()

    async with at_work(a_consumer(effects, mode), database) as bench:
        await bench.feed([a_record(0)])
        await bench.settled(1)
        await operator.park(database, GROUP, PLACE.topic, "rx_1", actor="ann", reason="by mistake")
        if verb == "retry":
            await operator.request_release(database, GROUP, [(PLACE.topic, "rx_1")], actor="ann")
        else:
            await operator.drop_key(database, GROUP, PLACE.topic, "rx_1", actor="ann", reason="by mistake")
        await bench.until_rows("select key from drx_consumer.parked_key", [])
        bench.processor.offer(PLACE, [a_record(1)])
        await bench.settled(2)

        assert effects.kept == ["evt_0", "evt_1"]


async def test_a_key_of_a_partition_that_is_not_known_is_not_guessed(database: Database) -> None:
    with pytest.raises(ConfigError, match="--partition"):
        await operator.park(database, GROUP, PLACE.topic, "rx_1", actor="ann", reason="void")
    with pytest.raises(ConfigError, match="needs a reason"):
        await operator.park(database, GROUP, PLACE.topic, "rx_1", partition=0, actor="ann", reason=" ")
