"""Run the archive's publisher without a broker until all files are merged: `python -m … DSN ROOT`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from consumers.api import Setup
from consumers.archive.consumer import open_archive
from consumers.archive.writer import Archiver
from consumers.postgres.migrate import migrate_tables
from consumers.postgres.pool import Database, open_database

# Publish new files, merge, exchange, check.
RUNS = 4


@asynccontextmanager
async def opened(dsn: str, root: str) -> AsyncIterator[tuple[Archiver, Database]]:
    """Open an archive, whose files are full with one event, with its tables."""
    consumer = open_archive(Setup({"root": root, "batch_records": "1"}, CollectorRegistry()))
    writer = consumer.handle
    assert isinstance(writer, Archiver)
    async with open_database(dsn, size=2, application_name="merging") as database:
        await migrate_tables(database, consumer)
        async with database.transaction() as connection:
            await writer.prepare(connection)
        yield writer, database


async def _main(dsn: str, root: str) -> None:
    async with opened(dsn, root) as (writer, database):
        for _ in range(RUNS):
            async with database.transaction(calls_services=True) as connection:
                await writer.publish(connection)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
