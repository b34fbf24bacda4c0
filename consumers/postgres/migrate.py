"""Migrations: numbered SQL files, each applied to a schema once, under a lock.

A consumer needs the schema of the runtime, `drx_consumer`, and its own, if it has tables.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from bridge.errors import ConfigError
from consumers.api import Consumer, Tables
from consumers.postgres.pool import Connection, Database
from consumers.postgres.text import LEDGER_SCHEMA, is_schema

LEDGER = Tables(files("consumers.postgres") / "migrations", LEDGER_SCHEMA)

# Placeholder for the name of the schema in a file.
PLACEHOLDER = "{schema}"

_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
# Seconds. A migration may rewrite a table, and other processes wait for it.
_STEP_TIMEOUT_S = 900
# Seconds. An `ALTER TABLE` that waits for a lock makes every later statement on the table wait, too.
_LOCK_TIMEOUT_S = 10


class Migration(NamedTuple):
    """A migration file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Digest of the file, before the schema's name is inserted."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate_tables(
    database: Database, consumer: Consumer, *, notice: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Create or upgrade the tables; return the migrations applied, such as `drx_consumer 1`."""
    return [
        f"{tables.schema} {number}"
        for tables in _tables(consumer)
        for number in await migrate(database, tables, notice=notice)
    ]


async def pending_tables(database: Database, consumer: Consumer) -> list[str]:
    """Return the migrations that `migrate_tables` would apply; needs only read permission."""
    return [f"{tables.schema} {n}" for tables in _tables(consumer) for n in await pending(database, tables)]


async def lacks_own_tables(database: Database, consumer: Consumer) -> bool:
    """Return whether the consumer's first migration is missing: its schema was not created yet, or was dropped."""
    return consumer.tables is not None and 1 in await pending(database, consumer.tables)


def _tables(consumer: Consumer) -> Iterator[Tables]:
    yield LEDGER
    if consumer.tables is not None:
        yield consumer.tables


async def migrate(database: Database, tables: Tables, *, notice: Callable[[str], None] = lambda _: None) -> list[int]:
    """Apply the migrations that a schema lacks, each in its own transaction; return the numbers applied.

    Concurrent processes wait for each other. Files are named `0001_words.sql`, and `{schema}` in them is replaced by
    the schema's name. The schema is created if it does not exist. `notice` gets the messages of `RAISE NOTICE`.
    Migrations of a newer release are ignored. If nothing is missing, read permission suffices. Raises `ConfigError` if
    an applied file has changed since.
    """
    if not await pending(database, tables):
        return []
    known, schema = read_migrations(tables.migrations), tables.schema
    applied: list[int] = []
    while True:
        async with database.transaction() as connection:
            await _lock(connection, schema)
            await _prepare(connection, schema)
            missing = _missing(known, await _applied(connection, schema), schema)
            if not missing:
                return applied
            await _apply(connection, missing[0], schema=schema, notice=notice)
        applied.append(missing[0].number)


async def pending(database: Database, tables: Tables) -> list[int]:
    """Return the numbers that `migrate` would apply; needs only read permission. Raises like `migrate`."""
    known, schema = read_migrations(tables.migrations), tables.schema
    check_schema(schema)
    exists = await database.fetchval("select to_regclass($1) is not null", f'"{schema}".schema_migration')
    applied = await _applied(database, schema) if exists else {}
    return [migration.number for migration in _missing(known, applied, schema)]


def read_migrations(directory: Traversable | Path) -> list[Migration]:
    """Return the migrations of a directory in order."""
    found = []
    for file in directory.iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name, file.read_text(encoding="utf-8")))
    found.sort()
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ConfigError("migrations must be numbered from 0001 without a gap")
    return found


def check_schema(schema: str) -> None:
    """Refuse an invalid schema name."""
    if not is_schema(schema):
        raise ConfigError("a schema name has at most 63 of a-z, 0-9 and _, and does not begin with a digit or pg_")


async def _lock(connection: Any, schema: str) -> None:
    """Lock the migrations of one schema until the transaction ends."""
    limit = f"{_STEP_TIMEOUT_S}s"
    await connection.execute(f"set local statement_timeout = '{limit}'; set local lock_timeout = '{limit}'")
    await connection.execute(
        "select pg_advisory_xact_lock(hashtextextended($1, 0))", f"migrate {schema}", timeout=_STEP_TIMEOUT_S
    )
    await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT_S}s'")


async def _prepare(connection: Connection, schema: str) -> None:
    """Create the schema and its list of migrations if needed."""
    # `create schema if not exists` needs the permission to create one even if it exists.
    if not await connection.fetchval("select exists (select from pg_namespace where nspname = $1)", schema):
        await connection.execute(f'create schema "{schema}"')
    await connection.execute(
        f"""
        create table if not exists "{schema}".schema_migration (
          number int primary key,
          name text not null,
          sha256 text not null,
          applied_at timestamptz not null default clock_timestamp()
        )
        """
    )


async def _applied(source: Connection | Database, schema: str) -> dict[int, str]:
    return dict(map(tuple, await source.fetch(f'select number, sha256 from "{schema}".schema_migration')))  # noqa: S608 - a validated name


def _missing(known: list[Migration], applied: dict[int, str], schema: str) -> list[Migration]:
    # Migrations of a newer release are ignored: migrations only add, so both releases can run during a rollout or
    # rollback.
    for migration in known:
        if applied.get(migration.number, migration.sha256) != migration.sha256:
            msg = f"schema {schema} has another version of {migration.name}: restore that version and add a new file"
            raise ConfigError(msg)
    return [migration for migration in known if migration.number not in applied]


async def _apply(connection: Any, migration: Migration, *, schema: str, notice: Callable[[str], None]) -> None:
    def hear(_: object, message: Any) -> None:
        notice(str(message.message))  # constants in our own SQL files

    connection.add_log_listener(hear)
    try:
        await connection.execute(migration.sql.replace(PLACEHOLDER, f'"{schema}"'), timeout=_STEP_TIMEOUT_S)
    finally:
        connection.remove_log_listener(hear)
    await connection.execute(
        f'insert into "{schema}".schema_migration (number, name, sha256) values ($1, $2, $3)',  # noqa: S608 - as above
        migration.number,
        migration.name,
        migration.sha256,
    )
