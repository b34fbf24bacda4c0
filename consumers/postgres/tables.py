"""All tables that a consumer needs: the runtime's, schema `drx_consumer`, and its own; errors as of `migrate`."""

from collections.abc import Callable, Iterator

from consumers.api import Consumer, Tables
from consumers.postgres.migrate import LEDGER_MIGRATIONS, LEDGER_SCHEMA, migrate, pending
from consumers.postgres.pool import Database


async def migrate_tables(
    database: Database, consumer: Consumer, *, notice: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Create or upgrade the tables; return what was applied, as `schema 1`."""
    return [
        f"{tables.schema} {number}"
        for tables in _tables(consumer)
        for number in await migrate(database, directory=tables.migrations, schema=tables.schema, notice=notice)
    ]


async def pending_tables(database: Database, consumer: Consumer) -> list[str]:
    """Return what `migrate_tables` would apply; needs only the right to read."""
    return [
        f"{tables.schema} {number}"
        for tables in _tables(consumer)
        for number in await pending(database, directory=tables.migrations, schema=tables.schema)
    ]


async def lacks_own_tables(database: Database, consumer: Consumer) -> bool:
    """Return whether the consumer has tables of its own that do not exist: not yet, or dropped as a whole."""
    own = consumer.tables
    return own is not None and 1 in await pending(database, directory=own.migrations, schema=own.schema)


def _tables(consumer: Consumer) -> Iterator[Tables]:
    yield Tables(LEDGER_MIGRATIONS, LEDGER_SCHEMA)
    if consumer.tables is not None:
        yield consumer.tables
