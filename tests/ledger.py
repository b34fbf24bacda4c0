"""Helpers of tests on the tables of consumers: a database, records, and a wait for blocked sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.postgres.migrate import LEDGER, migrate
from consumers.postgres.pool import Database, open_database
from consumers.runtime.ledger import Inbox, Ledger, Settlement
from consumers.runtime.parking import Why, append, park

GROUP = "desk"
PLACE = TopicPartition("drx.prescriptions.v1", 3)
KEY = "rx-1"

_WAITING = """
select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""


@asynccontextmanager
async def ledger_database(dsn: str, *, size: int = 4, **bounds: Any) -> AsyncIterator[Database]:
    async with open_database(dsn, size=size, application_name="tests", **bounds) as database:
        await migrate(database, LEDGER)
        yield database


def an_entry(event_id: str = "evt-1", *, body: str = "a1", source: str = "acme") -> Inbox:
    return Inbox(source, event_id, digest(body))


def digest(body: str) -> str:
    """Return the digest of a body as in its header; empty for an empty body, as of a foreign record."""
    return sha256(body.encode()).hexdigest() if body else ""


def a_consumed_record(
    offset: int, *, key: bytes | None = KEY.encode(), event_id: str = "", body: str = "a1"
) -> ConsumedRecord:
    """Build a record of `PLACE`; its event id follows its offset unless said."""
    headers = [
        ("ce_source", b"acme"),
        ("ce_id", (event_id or f"evt-{offset}").encode()),
        ("ce_type", b"prescription.sent"),
        ("drx_body_sha256", digest(body).encode()),
        ("x-binary", b"\xff\x00"),
    ]
    return ConsumedRecord(PLACE.topic, PLACE.partition, offset, 1_700_000_000_000 + offset, key, b"\x00v", headers)


@asynccontextmanager
async def settling(ledger: Ledger) -> AsyncIterator[Settlement]:
    """Open a transaction on `PLACE` whose epoch is not checked."""
    async with ledger.begin(PLACE, 1) as settlement:
        yield settlement


async def parked(
    ledger: Ledger, *offsets: int, key: bytes = KEY.encode(), cls: str = "bug", code: str = "unexpected"
) -> None:
    async with settling(ledger) as settlement:
        await park(settlement, a_consumed_record(offsets[0], key=key), Why(cls, code, 1))
        for offset in offsets[1:]:
            assert await append(settlement, a_consumed_record(offset, key=key))


async def until_waiting(database: Database, sessions: int = 1) -> None:
    """Return when `sessions` wait for a lock, so that a test controls the interleaving."""
    async with asyncio.timeout(20):
        while True:
            async with database.transaction() as connection:
                if await connection.fetchval(_WAITING) >= sessions:
                    return


async def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    async with database.transaction() as connection:
        return [tuple(row) for row in await connection.fetch(query)]
