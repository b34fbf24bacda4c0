"""A database that is away, or busy: nothing is parked for it, nothing is lost, nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from bridge.errors import TransientError
from bridge.event import Event
from bridge.kafka.transport import Place
from consumers.api import Batches, Lanes
from consumers.postgres.errors import NoConnectionError
from consumers.runtime.ledger import Ledger, Settlement
from tests.kafka import until
from tests.postgres import EmbeddedPostgres, fresh_database
from tests.settling import GROUP, PLACE, Effects, Gate, a_consumer, a_database, a_record, at_work


@pytest.fixture(scope="module")
def server(make_postgres: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
    return make_postgres()


@pytest.fixture
def dsn(server: EmbeddedPostgres) -> Iterator[str]:
    with fresh_database(server.dsn) as given:
        yield given


class CrowdedLedger(Ledger):
    """Fails each transaction before the handler is called, while `refuses` returns True."""

    refuses: Callable[[], bool] = staticmethod(lambda: False)
    failure: TransientError = NoConnectionError("too_many_connections")

    @asynccontextmanager
    async def begin(self, place: Place, epoch: int, known: datetime | None = None) -> AsyncIterator[Settlement]:
        if self.refuses():
            raise self.failure
        async with super().begin(place, epoch, known) as settlement:
            yield settlement


@pytest.mark.parametrize("mode", [Lanes(1, transactional=True), Lanes(1)], ids=["inside", "outside"])
@pytest.mark.parametrize(
    "failure",
    [NoConnectionError("too_many_connections"), TransientError("statement_timeout")],
    ids=lambda exc: exc.code,
)
async def test_what_our_own_statements_meet_is_no_records_fault_although_others_pass(
    dsn: str, mode: Lanes, failure: TransientError
) -> None:
    """A busy server refuses one and serves another: the handler has not been asked about the record yet."""
    effects = Effects()
    refused, offset = 0, 1

    def refuses() -> bool:
        nonlocal refused
        queue = bench.processor._partitions[PLACE].queues.get("rx_1")
        refused += (refuse := refused < 20 and queue is not None)
        return refuse

    async with a_database(dsn) as database:
        ledger = CrowdedLedger(database, group=GROUP, cluster_id="here")
        ledger.failure = failure
        async with at_work(a_consumer(effects, mode), database, ledger=ledger) as bench:
            ledger.refuses = refuses
            await bench.feed([a_record(0)])
            while refused < 20:
                bench.processor.offer(PLACE, [a_record(offset, f"rx_{offset + 1}")])
                offset += 1
                await asyncio.sleep(0.01)
            await bench.settled(offset)

            assert (refused, await bench.parked()) == (20, [])
            assert len(effects.applied) == offset


async def test_a_batch_that_takes_long_costs_a_retried_record_no_attempts(dsn: str) -> None:
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
        a_database(dsn, lock_timeout_s=0.02) as database,
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


async def test_what_is_in_flight_and_how_old_it_gets_is_reported(dsn: str) -> None:
    effects = Effects()
    gate = Gate(effects)

    async with a_database(dsn) as database, at_work(a_consumer(effects, Lanes(1)), database) as bench:
        await bench.feed([a_record(0), a_record(1)])
        await until(lambda: bench.count("inflight_records") == 2 and bench.count("oldest_inflight_age_seconds") > 0)
        gate.open()
        await bench.settled(2)

        assert bench.count("freshness_seconds_count", segment="end_to_end") == 2
        assert bench.count("freshness_seconds_count", segment="kafka_to_applied") == 2
        assert bench.count("circuit_state", state="closed") == 1
