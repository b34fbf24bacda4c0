"""A processor on a real database, with a table for effects; each test runs in each mode unless it sets one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from consumers.api import Batches, Consumer, Lanes
from consumers.postgres.pool import Database
from tests.settling import ALL_MODES, Bench, Effects, FailingLedger, a_consumer, a_database, at_work


@pytest.fixture
async def database(ledger_dsn: str) -> AsyncIterator[Database]:
    async with a_database(ledger_dsn) as opened:
        yield opened


@pytest.fixture(params=ALL_MODES.values(), ids=[*ALL_MODES])
def mode(request: pytest.FixtureRequest) -> Lanes | Batches:
    found: Lanes | Batches = request.param
    return found


@pytest.fixture
def effects() -> Effects:
    return Effects()


@pytest.fixture
def consumer(effects: Effects, mode: Lanes | Batches) -> Consumer:
    return a_consumer(effects, mode)


@pytest.fixture
def ledger(database: Database) -> FailingLedger:
    return FailingLedger(database)


@pytest.fixture
def options() -> dict[str, Any]:
    return {}


@pytest.fixture
async def bench(
    consumer: Consumer, database: Database, ledger: FailingLedger, options: dict[str, Any]
) -> AsyncIterator[Bench]:
    async with at_work(consumer, database, ledger=ledger, **options) as opened:
        yield opened
