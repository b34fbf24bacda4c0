"""The database of tests of the processor: the ledger's tables, and one for effects."""

from collections.abc import AsyncIterator

import pytest

from consumers.postgres.pool import Database
from tests.settling import a_database


@pytest.fixture
async def database(ledger_dsn: str) -> AsyncIterator[Database]:
    async with a_database(ledger_dsn) as opened:
        yield opened
