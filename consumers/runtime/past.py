"""Refuses tables that do not fit the group: empty in the middle of the log, or full at its beginning."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.errors import ConfigError
from bridge.kafka.transport import Place
from consumers.api import Consumer
from consumers.postgres.pool import Database
from consumers.postgres.tables import lacks_own_tables
from consumers.runtime.operator import Decision, audit
from consumers.runtime.progress import forgotten_since, has_past


async def refuse_past(database: Database, consumer: Consumer) -> None:
    """Refuse tables that are about to be made for a group that has a past: they would lack it for ever.

    And those of a group that was forgotten since they were made: they would hold its effects twice.

    Raises:
        ConfigError: A schema that was dropped, and a group that was not, or the other way round; the message names what
            mends it.
        TransientError: The database is away.
    """
    if await _would_repeat(database, consumer):
        schema = "" if consumer.tables is None else consumer.tables.schema
        msg = (
            f"group {consumer.group} was forgotten, and schema {schema} holds what it has applied before: drop the"
            f" schema, then `drx-consumer init`; or `drx-consumer init {consumer.name} --go-on --reason …` where events"
            f" may be applied to it again"
        )
        raise ConfigError(msg)
    if await _would_lack(database, consumer):
        schema = "" if consumer.tables is None else consumer.tables.schema
        msg = (
            f"schema {schema} has no tables, and group {consumer.group} has read events that they would lack: run"
            f" `drx-consumer forget {consumer.name} --schema {schema} --reason …`, then `drx-consumer init`; or"
            f" `drx-consumer init {consumer.name} --go-on --reason …` to do without those events"
        )
        raise ConfigError(msg)


async def audit_going_on(database: Database, consumer: Consumer, *, actor: str, reason: str) -> None:
    """Keep who had it go on all the same, and why; nothing where the tables fit."""
    if await _would_lack(database, consumer) or await _would_repeat(database, consumer):
        async with database.transaction() as connection:
            await audit(connection, consumer.group, "go_on", [Decision()], actor=actor, reason=reason)


def refuse_lost_progress(consumer: Consumer, committed: Mapping[Place, int | None]) -> None:
    """Refuse to go on from Kafka's offsets alone where the database says nothing, and tables in it hold nothing.

    Raises:
        ConfigError: The database is another than before, or was emptied.
    """
    if consumer.tables is not None and any(committed.values()):
        msg = (
            f"group {consumer.group} has offsets in Kafka and none in this database, whose tables lack what lies"
            f" before them: `drx-consumer init {consumer.name} --from earliest|latest|TIME` says where to begin"
        )
        raise ConfigError(msg)


async def _would_repeat(database: Database, consumer: Consumer) -> bool:
    tables = consumer.tables
    if tables is None or await lacks_own_tables(database, consumer) or await has_past(database, consumer.group):
        return False
    return await forgotten_since(database, consumer.group, tables.schema)


async def _would_lack(database: Database, consumer: Consumer) -> bool:
    return await lacks_own_tables(database, consumer) and await has_past(database, consumer.group)
