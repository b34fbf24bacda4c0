import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.errors import ConfigError, PermanentError, TransientError
from consumers.api import Tables
from consumers.postgres.migrate import LEDGER, check_schema, migrate, pending, read_migrations
from consumers.postgres.pool import Database, open_database
from consumers.runtime import parking
from consumers.runtime.ledger import Ledger
from consumers.runtime.operator import By, discard, forget_group, lock_progress, request_release, set_offsets
from tests.ledger import GROUP, KEY, PLACE, a_consumed_record, an_entry, rows, until_waiting
from tests.postgres import EmbeddedPostgres, execute

ALL = [migration.number for migration in read_migrations(LEDGER.migrations)]
# What a process of the first release has written.
_BEFORE = (
    """
    insert into drx_consumer.progress (grp, topic, part, next_offset, last_event_id, cluster_id)
    values ($1, $2, $3, 10, 'evt-9', 'cluster-a')
    """,
    'insert into drx_consumer.settled (grp, topic, part, "offset") values ($1, $2, $3, 12)',
    """
    insert into drx_consumer.parked_key (grp, topic, part, key, class, code, attempts)
    values ($1, $2, $3, 'rx-1', 'permanent', 'refused', 1)
    """,
    """
    insert into drx_consumer.parked_event (grp, topic, part, "offset", key, timestamp_ms, headers, source, event_id,
      event_type, body_sha256, class, code, attempts)
    values ($1, $2, $3, 8, 'rx-1', 1, '[]', 'acme', 'evt-8', 'prescription.sent', '', 'permanent', 'refused', 1)
    """,
)


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[Database]:
    async with open_database(postgres, size=4, application_name="test") as database:
        yield database


def files(directory: Path, *contents: str) -> Path:
    directory.mkdir(exist_ok=True)
    for number, content in enumerate(contents, 1):
        (directory / f"{number:04}_step.sql").write_text(content)
    return directory


async def test_an_empty_database_gets_every_migration_once(database: Database) -> None:
    before, first = await pending(database, LEDGER), await migrate(database, LEDGER)

    assert (before, first, await migrate(database, LEDGER), await pending(database, LEDGER)) == (ALL, ALL, [], [])


async def test_an_upgrade_in_place_keeps_what_was_there(database: Database, tmp_path: Path) -> None:
    first, *_ = read_migrations(LEDGER.migrations)
    (tmp_path / first.name).write_text(first.sql)
    await migrate(database, Tables(tmp_path, LEDGER.schema))
    async with database.transaction() as connection:
        for statement in _BEFORE:
            await connection.execute(statement, GROUP, *PLACE)

    applied = await migrate(database, LEDGER)

    claim = await Ledger(database, group=GROUP, cluster_id="cluster-a").claim(PLACE)
    assert applied == ALL[1:]
    assert (claim.next_offset, claim.settled, claim.parked) == (10, frozenset({12}), {"rx-1"})


async def test_two_processes_at_once_apply_each_migration_once(database: Database, tmp_path: Path) -> None:
    """The second waits at the lock while the first is in the middle of a migration."""
    directory = files(tmp_path / "steps", "select pg_advisory_xact_lock(7); create table {schema}.note (id int)")
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock(7)")
        both = [asyncio.create_task(migrate(database, Tables(directory, "own"))) for _ in range(2)]
        await until_waiting(database, 2)

    assert sorted(await asyncio.gather(*both)) == [[], [1]]


async def test_a_migration_that_fails_leaves_nothing_and_keeps_the_ones_before(
    database: Database, tmp_path: Path
) -> None:
    directory = files(
        tmp_path / "steps", "create table {schema}.one ()", "create table {schema}.two (); create table {schema}.one ()"
    )
    with pytest.raises(PermanentError, match=r"^42P07$"):
        await migrate(database, Tables(directory, "own"))

    assert await rows(database, "select number from own.schema_migration") == [(1,)]
    assert await rows(database, "select from pg_tables where tablename = 'two'") == []


async def test_a_file_that_was_changed_is_refused(database: Database, tmp_path: Path) -> None:
    await migrate(database, Tables(files(tmp_path / "steps", "create table {schema}.one ()"), "own"))
    changed = files(tmp_path / "steps", "create table {schema}.uno ()", "create table {schema}.two ()")

    with pytest.raises(ConfigError, match="0001_step"):
        await migrate(database, Tables(changed, "own"))
    with pytest.raises(ConfigError, match="0001_step"):
        await pending(database, Tables(changed, "own"))
    assert await rows(database, "select from pg_tables where tablename = 'two'") == []


async def test_an_older_release_takes_the_schema_of_a_newer_one_as_it_is(database: Database, tmp_path: Path) -> None:
    steps = "create table {schema}.one ()", "create table {schema}.two ()"
    await migrate(database, Tables(files(tmp_path / "new", *steps), "own"))
    old = files(tmp_path / "old", steps[0])

    assert await pending(database, Tables(old, "own")) == []
    assert await migrate(database, Tables(old, "own")) == []
    assert await rows(database, "select number from own.schema_migration order by 1") == [(1,), (2,)]


@pytest.mark.parametrize("schema", ["", "Desk", "pg_desk", "desk-2", 'x"; drop schema public; --', "d" * 64])
def test_a_name_that_is_no_plain_identifier_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError):
        check_schema(schema)


async def allowed(database: Database, role: str, statement: str) -> bool:
    """Run a statement as a role; undoing it is the fresh database's part."""
    try:
        async with database.transaction() as connection:
            await connection.execute(f"set local role {role}")
            await connection.execute(statement)
    except TransientError as refusal:
        assert refusal.code == "not_permitted"  # noqa: PT017 - anything else would be a broken statement
        return False
    return True


# Beside what the test below does as a consumer and as an operator.
_MAY = [
    ("drx_consumer", "insert into drx_consumer.park_breaker (grp, opened_at) values ('g', now())"),
    ("drx_operator", "update drx_consumer.park_breaker set opened_at = null"),
    ("drx_reader", "select opened_at from drx_consumer.park_breaker"),
    ("drx_reader", "select next_offset from drx_consumer.progress"),
    ("drx_reader", 'select class, code, "offset", event_id from drx_consumer.parked_event'),
    ("drx_reader", "select actor, verb, reason from drx_consumer.audit"),
]
_MAY_NOT = [
    ("drx_consumer", "create table drx_consumer.own ()"),
    ("drx_consumer", "drop table drx_consumer.settled"),
    ("drx_consumer", "delete from drx_consumer.progress"),
    ("drx_consumer", "delete from drx_consumer.inbox"),
    ("drx_consumer", "update drx_consumer.inbox set body_sha256 = ''"),
    ("drx_consumer", "delete from drx_consumer.audit"),
    ("drx_consumer", "insert into drx_consumer.audit (actor, grp, verb, reason) values ('ann', 'g', 'skip', 'void')"),
    ("drx_consumer", "insert into drx_consumer.schema_migration values (99, 'x', 'x')"),
    ("drx_consumer", "delete from drx_consumer.park_breaker"),
    ("drx_operator", "insert into drx_consumer.park_breaker (grp) values ('g')"),
    ("drx_operator", "delete from drx_consumer.audit"),
    ("drx_operator", "update drx_consumer.audit set actor = 'bob'"),
    ("drx_operator", "insert into drx_consumer.parked_event default values"),
    ("drx_operator", "update drx_consumer.parked_key set code = ''"),
    ("drx_operator", "create table drx_consumer.own ()"),
    ("drx_reader", "select value from drx_consumer.parked_event"),
    ("drx_reader", "select headers from drx_consumer.parked_event"),
    ("drx_reader", "select key from drx_consumer.parked_key"),
    ("drx_reader", "select key from drx_consumer.audit"),
    ("drx_reader", "update drx_consumer.progress set next_offset = 0"),
]


async def test_roles_may_do_what_they_must_and_no_more(ledger_dsn: str) -> None:
    async with open_database(ledger_dsn, size=1, application_name="test") as database:
        refused = [each for each in _MAY if not await allowed(database, *each)]
        granted = [each for each in _MAY_NOT if await allowed(database, *each)]

    assert (refused, granted) == ([], [])


async def test_a_consumer_and_an_operator_need_no_more_than_their_roles(ledger_dsn: str) -> None:
    topic, key = PLACE.topic, KEY
    async with (
        open_database(f"{ledger_dsn}?role=drx_consumer", size=1, application_name="consumer") as consumer,
        open_database(f"{ledger_dsn}?role=drx_operator", size=1, application_name="operator") as operator,
    ):
        assert await pending(consumer, LEDGER) == []
        async with operator.transaction() as connection:
            await lock_progress(connection, GROUP, [topic])
            await set_offsets(connection, GROUP, {PLACE: 0}, cluster_id="cluster-a", move=True, by=By("ann", "r"))
        ledger = Ledger(consumer, group=GROUP, cluster_id="cluster-a")
        epoch = (await ledger.claim(PLACE)).epoch
        async with ledger.begin(PLACE, epoch) as settlement:
            await settlement.fence(0)
            await settlement.admit([an_entry()])
            await parking.park(settlement, a_consumed_record(5), parking.Why("bug", "unexpected", 1))
            for offset in (6, 7, 8):
                await parking.append(settlement, a_consumed_record(offset))
            await settlement.settle(next_offset=1, last_event_id="evt-0", above=(5, 6, 7, 8))
        await request_release(operator, GROUP, parking.Filters(), by=By("ann"))
        assert await parking.requested(consumer, GROUP, [PLACE]) == [(PLACE, key)]
        async with ledger.begin(PLACE, epoch) as settlement:
            waiting = await parking.head(settlement, key)
            assert waiting is not None
            await parking.release(settlement, waiting)
            waiting = await parking.head(settlement, key)
            assert waiting is not None
            await parking.park_again(settlement, waiting, parking.Why("bug", "unexpected", 1))
        await discard(operator, GROUP, topic, key, offset=6, by=By("ann", "void"))
        await discard(operator, GROUP, topic, key, by=By("ann", "void"))
        await forget_group(operator, GROUP, by=By("ann", "void"))

        assert await parking.census(consumer, GROUP) == (0, 0, 0.0)


async def test_a_user_who_may_not_make_roles_still_makes_the_tables_and_is_told(own_postgres: EmbeddedPostgres) -> None:
    """Roles that an administrator has made before are granted to; the others are named."""
    await asyncio.to_thread(
        execute,
        own_postgres.dsn,
        "create role plain login password 'plain'",
        "create role drx_reader nologin",
        "create database plain owner plain",
    )
    address = urlsplit(own_postgres.dsn)
    dsn = address._replace(netloc=f"plain:plain@{address.netloc.rpartition('@')[2]}", path="/plain").geturl()
    notices: list[str] = []
    async with open_database(dsn, size=1, application_name="test") as database:
        applied = await migrate(database, LEDGER, notice=notices.append)
        readable = await rows(database, "select has_table_privilege('drx_reader', 'drx_consumer.progress', 'select')")

    assert applied == ALL
    assert [notice.split()[1] for notice in notices] == ["drx_consumer", "drx_operator"]
    assert readable == [(True,)]
