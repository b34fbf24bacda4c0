"""Fixtures of tests on the tables of consumers; a module that wants others in them defines its own `database`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from consumers.postgres.pool import Database
from consumers.runtime.ledger import Ledger
from tests.ledger import GROUP, ledger_database


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[Database]:
    async with ledger_database(postgres) as database:
        yield database


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, group=GROUP, cluster_id="cluster-a")
