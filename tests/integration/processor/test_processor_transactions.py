"""Failures of the transaction that no handler has raised: they affect only the record that caused them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from bridge.event import Event
from consumers.api import Batches, Consumer, Context, Lanes, Placed
from consumers.postgres.pool import Database
from tests.settling import GROUP, PLACE, Effects, a_database, a_record, at_work

MODES = pytest.mark.parametrize("mode", [Batches(50, 0.005), Lanes(4, transactional=True)], ids=["batches", "lanes"])

_DEFERRED = """
create table parent (id text primary key);
create table child (parent text references parent deferrable initially deferred);
"""


@pytest.fixture
async def database(ledger_dsn: str) -> AsyncIterator[Database]:
    async with a_database(ledger_dsn) as opened:
        async with opened.transaction() as connection:
            await connection.execute(_DEFERRED)
        yield opened


async def deferred(connection: Any) -> None:
    """Break a constraint that is looked at when the transaction ends."""
    await connection.execute("insert into child values ('nobody')")


async def swallowed(connection: Any) -> None:
    """Leave a transaction behind in which nothing can be done any more."""
    with suppress(Exception):
        await connection.execute("select 1 / 0")


BREAKS = pytest.mark.parametrize(
    ("breaks", "code"), [(deferred, "23503"), (swallowed, "25P02")], ids=["deferred", "swallowed"]
)


def a_consumer(effects: Effects, mode: Lanes | Batches, breaks: Callable[[Any], Awaitable[None]]) -> Consumer:
    consumer = Consumer(GROUP, [PLACE.topic], mode=mode)

    async def one(event: Event, context: Context) -> None:
        await effects.one(event, context)
        if event.id == "evt_2":
            await breaks(context.connection)

    async def batch(placed: Sequence[Placed], connection: Any) -> None:
        del connection
        for event, context in placed:
            await one(event, context)

    consumer.handler(batch if isinstance(mode, Batches) else one)
    return consumer


@MODES
@BREAKS
async def test_a_record_that_spoils_its_transaction_is_parked_and_the_others_are_applied(
    database: Database, mode: Lanes | Batches, breaks: Callable[[Any], Awaitable[None]], code: str
) -> None:
    effects = Effects()

    async with at_work(a_consumer(effects, mode, breaks), database) as bench:
        await bench.feed_all([a_record(offset, f"rx_{offset % 3}") for offset in range(7)])

        assert await bench.parked() == [("rx_2", 2, code), ("rx_2", 5, "key_parked")]
        assert sorted(await bench.effects()) == ["evt_0", "evt_1", "evt_3", "evt_4", "evt_6"]
        assert bench.processor.standing() == "ok"


@MODES
@BREAKS
async def test_a_release_that_spoils_its_transaction_leaves_the_key_parked(
    database: Database, mode: Lanes | Batches, breaks: Callable[[Any], Awaitable[None]], code: str
) -> None:
    effects = Effects()

    async with at_work(a_consumer(effects, mode, breaks), database) as bench:
        await bench.feed_all([a_record(2)])
        await bench.request_release("rx_1")
        await bench.until_rows("select attempts, code from drx_consumer.parked_event", [(2, code)])

        assert not bench.failed
        assert bench.outcome("applied") == 0
