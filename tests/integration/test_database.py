import asyncio
import traceback
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.dev.ports import free_port
from bridge.errors import BridgeError, ConfigError, PermanentError, TransientError
from consumers.postgres.errors import NoConnectionError
from consumers.postgres.pool import Connection, Database, open_database
from tests.kafka import HANG_S
from tests.ledger import rows, until_waiting
from tests.postgres import EmbeddedPostgres


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[Database]:
    async with open_database(postgres, size=4, application_name="test") as database:
        async with database.transaction() as connection:
            await connection.execute("create table note (id int primary key, content text)")
            await connection.execute("insert into note values (1, 'a'), (2, 'b')")
        yield database


async def failure_of(database: Database, *statements: str) -> BridgeError:
    with pytest.raises(BridgeError) as caught:  # noqa: PT012 - one of the statements
        async with database.transaction() as connection:
            for statement in statements:
                await connection.execute(statement)
    return caught.value


async def end_session_of(database: Database, connection: Connection) -> None:
    pid = await connection.fetchval("select pg_backend_pid()")
    async with database.transaction() as other:
        assert await other.fetchval("select pg_terminate_backend($1, 10000)", pid)


async def test_a_database_that_is_away_is_met_at_the_first_transaction() -> None:
    dsn = f"postgresql://nobody:nothing@127.0.0.1:{free_port()}/none"
    async with open_database(dsn, size=1, application_name="test") as database:
        failure = await failure_of(database)

    assert (type(failure), failure.code) == (NoConnectionError, "connection_refused")
    assert isinstance(failure, TransientError)
    assert failure.systemic


@pytest.mark.parametrize("dsn", ["mysql://u:hunter2@h/d", "postgresql://u:hunter2@h:port/d"])
async def test_a_dsn_that_is_none_is_the_operators_to_mend(dsn: str) -> None:
    async with open_database(dsn, size=1, application_name="test") as database:
        failure = await failure_of(database)

    assert isinstance(failure, ConfigError)
    assert "hunter2" not in str(failure)


@pytest.mark.parametrize(
    ("part", "wrong", "code"), [("netloc", "nobody:wrong@", "authentication_failed"), ("path", "/none", "no_database")]
)
async def test_a_door_that_stays_shut_is_systemic(postgres: str, part: str, wrong: str, code: str) -> None:
    address = urlsplit(postgres)
    if part == "netloc":
        wrong += address.netloc.rpartition("@")[2]
    async with open_database(address._replace(**{part: wrong}).geturl(), size=1, application_name="test") as database:
        failure = await failure_of(database)

    assert isinstance(failure, TransientError)
    assert (failure.code, failure.systemic) == (code, True)


async def test_every_session_has_its_limits(postgres: str) -> None:
    async with (
        open_database(
            postgres,
            size=1,
            application_name="drx-consumer desk",
            command_timeout_s=10,
            lock_timeout_s=2,
            idle_in_transaction_timeout_s=7,
        ) as database,
        database.transaction() as connection,
    ):
        limits = {
            name: await connection.fetchval("select current_setting($1)", name)
            for name in (
                "application_name",
                "default_transaction_isolation",
                "idle_in_transaction_session_timeout",
                "lock_timeout",
                "statement_timeout",
                "TimeZone",
            )
        }

    assert list(limits.values()) == ["drx-consumer desk", "read committed", "7s", "2s", "9s", "UTC"]


@pytest.mark.parametrize("reset", [True, False])
async def test_what_a_handler_sets_does_not_outlive_its_transaction_unless_resets_are_left_out(
    postgres: str, *, reset: bool
) -> None:
    """Which they may only be where no statement of others runs."""
    async with open_database(postgres, size=1, application_name="test", reset=reset) as database:
        async with database.transaction() as connection:
            await connection.execute("set search_path to nowhere; set statement_timeout to 1000")

        async with database.transaction() as connection:
            assert (await connection.fetchval("show search_path") == "nowhere") is not reset
            assert await connection.fetchval("show statement_timeout") == ("27s" if reset else "1s")


async def test_one_statement_is_a_transaction_of_its_own_and_fails_as_any(database: Database) -> None:
    assert [tuple(row) for row in await database.fetch("select id from note where id > $1", 1)] == [(2,)]

    with pytest.raises(PermanentError) as refused:
        await database.fetch("insert into note values (1, 'hunter2') returning id")
    with pytest.raises(TransientError) as ended:
        await database.fetch("select pg_terminate_backend(pg_backend_pid())")
    assert (refused.value.code, ended.value.systemic) == ("23505", True)
    assert "hunter2" not in repr(refused.value)
    assert await database.fetch("select 1") == [(1,)]

    nowhere = f"postgresql://nobody:nothing@127.0.0.1:{free_port()}/none"
    async with open_database(nowhere, size=1, application_name="test") as away:
        with pytest.raises(NoConnectionError):
            await away.fetch("select 1")


async def test_a_row_that_is_refused_is_permanent_and_its_values_are_not_told(database: Database) -> None:
    failure = await failure_of(database, "insert into note values (1, 'Jane Doe')")

    assert isinstance(failure, PermanentError)
    assert failure.code == "23505"
    told = "".join(traceback.format_exception(failure))
    assert "Key (id)" not in told
    assert "UniqueViolation" not in told


async def test_a_connection_to_what_has_become_a_standby_is_not_used_again(postgres: str) -> None:
    """The next one may find the new primary, behind the same name or another host of the DSN."""
    async with open_database(postgres, size=1, application_name="test") as database:
        ((before,),) = await rows(database, "select pg_backend_pid()")
        await failure_of(database, "set transaction read only", "create table note ()")
        ((after,),) = await rows(database, "select pg_backend_pid()")

    assert before != after


async def test_a_lock_of_a_process_that_stopped_amid_a_statement_comes(postgres: str, database: Database) -> None:
    """The server has no time-out for a statement that is prepared and not run."""
    pool = partial(open_database, postgres, size=1, application_name="hasty")
    async with (
        pool(lock_timeout_s=0.1, idle_in_transaction_timeout_s=0.2) as hasty,
        pool(idle_in_transaction_timeout_s=0.2, command_timeout_s=1) as stopped,
    ):
        with pytest.raises(TransientError) as caught:  # noqa: PT012 - the session ends in the block
            async with stopped.transaction() as connection:
                await connection.execute("delete from note")
                preparing: Any = connection
                await preparing.prepare("select content from note")
                async with asyncio.timeout(HANG_S):
                    while await lacks_lock(hasty):
                        pass
                await connection.execute("select 1")

    assert caught.value.systemic
    assert await rows(database, "select from note") == []


async def lacks_lock(database: Database) -> bool:
    try:
        async with database.transaction() as connection:
            await connection.execute("delete from note")
    except TransientError as exc:
        if exc.code != "lock_timeout":
            raise
        return True
    return False


async def test_a_statement_that_takes_too_long_is_transient_and_the_connection_goes_on(postgres: str) -> None:
    async with open_database(postgres, size=1, application_name="test", command_timeout_s=2) as database:
        ((before,),) = await rows(database, "select pg_backend_pid()")
        failure = await failure_of(database, "select pg_sleep(60)")
        ((after,),) = await rows(database, "select pg_backend_pid()")

    assert isinstance(failure, TransientError)
    assert (failure.code, failure.systemic) == ("statement_timeout", False)
    assert before == after


async def test_a_session_that_is_ended_in_a_statement_is_systemic(postgres: str, database: Database) -> None:
    async with open_database(postgres, size=1, application_name="test") as other:
        async with database.transaction() as holder:
            await holder.execute("delete from note")
            deleting = asyncio.create_task(failure_of(other, "delete from note"))
            await until_waiting(database)
            await holder.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity where wait_event_type = 'Lock'"
            )
            failure = await deleting
        assert await rows(other, "select 1") == [(1,)]

    assert isinstance(failure, TransientError)
    assert (failure.code, failure.systemic) == ("shutting_down", True)


async def test_a_session_that_is_ended_before_the_commit_is_systemic(postgres: str, database: Database) -> None:
    async with open_database(postgres, size=1, application_name="test") as other:
        with pytest.raises(TransientError) as caught:  # noqa: PT012 - the session ends in the block
            async with other.transaction() as connection:
                await connection.execute("delete from note")
                await end_session_of(database, connection)

    assert caught.value.systemic
    assert len(await rows(database, "select from note")) == 2


async def test_a_frozen_server_is_systemic_within_the_bound(own_postgres: EmbeddedPostgres) -> None:
    async with open_database(
        own_postgres.dsn, size=1, application_name="test", command_timeout_s=1, acquire_timeout_s=1
    ) as database:
        await rows(database, "select 1")
        await asyncio.to_thread(own_postgres.pause)
        async with asyncio.timeout(30):
            inside = await failure_of(database, "select 1")
            outside = await failure_of(database, "select 1")
        await asyncio.to_thread(own_postgres.resume)
        assert await rows(database, "select 1") == [(1,)]

    assert isinstance(inside, TransientError)
    assert isinstance(outside, TransientError)
    assert (inside.systemic, outside.systemic) == (True, True)


async def test_a_time_out_of_the_handlers_own_stays_its_own(postgres: str) -> None:
    """It called another service from inside the transaction: the database is well, and its connection goes on."""
    async with open_database(postgres, size=1, application_name="test") as database:
        ((before,),) = await rows(database, "select pg_backend_pid()")
        with pytest.raises(TimeoutError):  # noqa: PT012 - the error of another service
            async with database.transaction(calls_services=True) as connection:
                await connection.execute("create table half ()")
                raise TimeoutError
        assert await rows(database, "select pg_backend_pid(), to_regclass('half')") == [(before, None)]


async def test_a_cancelled_statement_leaves_a_connection_that_works(database: Database, postgres: str) -> None:
    async with open_database(postgres, size=1, application_name="test") as other:

        async def delete() -> None:
            async with other.transaction() as connection:
                await connection.execute("delete from note")

        async with database.transaction() as connection:
            await connection.execute("select from note for update")
            deleting = asyncio.create_task(delete())
            await until_waiting(database)
            deleting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await deleting

        assert await rows(other, "select count(*) from note") == [(2,)]


async def test_a_connection_that_does_not_get_free_is_waited_for_within_a_bound(postgres: str) -> None:
    async with (
        open_database(postgres, size=1, application_name="test", acquire_timeout_s=0.5) as database,
        database.transaction(),
    ):
        failure = await failure_of(database)

    assert isinstance(failure, TransientError)
    assert failure.code == "no_connection"
