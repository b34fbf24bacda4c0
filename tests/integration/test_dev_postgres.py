import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg  # noqa: TID251 - the server itself is under test
import pytest

from bridge.dev.postgres import user_of
from bridge.dev.processes import launched
from tests.integration.dev_process import gone
from tests.integration.service_process import until
from tests.postgres import EmbeddedPostgres, execute

CANARY = "Canary-Patient"


@pytest.fixture(scope="module")
def server(make_postgres: Callable[[], EmbeddedPostgres]) -> EmbeddedPostgres:
    return make_postgres()


def test_an_ordinary_user_starts_it_as_himself(tmp_path: Path) -> None:
    """Whoever runs the tests: root lets `nobody` do it."""
    program = """
        import os, sys
        from pathlib import Path
        import psutil
        from tests.postgres import EmbeddedPostgres, execute
        server = EmbeddedPostgres(Path(sys.argv[1]))
        server.start()
        execute(server.dsn, "create table kept as select 1")
        server.kill()
        server.start()
        assert execute(server.dsn, "select * from kept") == [[(1,)]]
        print(os.geteuid() != 0, psutil.Process(server.pid).uids().real == os.getuid())
        server.close()
    """
    command = launched([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], user=user_of(tmp_path / "none"))

    done = subprocess.run(command, cwd=Path.cwd(), capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 - our own command line

    assert (done.stdout, done.returncode) == ("True True\n", 0), done.stderr


async def test_a_backend_that_outlives_its_server_does_not_keep_the_next_one_from_starting(
    server: EmbeddedPostgres,
) -> None:
    busy = await asyncpg.connect(server.dsn)
    backend = busy.get_server_pid()
    statement = asyncio.create_task(busy.execute("do $$ begin loop end loop; end $$"))
    active = "select count(*) from pg_stat_activity where query like 'do $$ begin loop%' and state = 'active'"
    await asyncio.to_thread(until, lambda: execute(server.dsn, active) == [[(1,)]], what="the statement")

    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.wait(30)
    assert not gone(backend)
    await asyncio.to_thread(server.start)

    assert gone(backend)
    assert await asyncio.to_thread(execute, server.dsn, "select 1") == [[(1,)]]
    with suppress(OSError, asyncpg.PostgresError):
        await statement
    busy.terminate()


def test_the_log_holds_no_value_of_a_statement(server: EmbeddedPostgres) -> None:
    execute(server.dsn, "create table patient (name text primary key)")
    insert = f"insert into patient values ('{CANARY}')"  # noqa: S608 - a constant
    execute(server.dsn, insert)
    for failing in (insert, f"select '{CANARY}'::int", f'select "{CANARY}"', f"do $$ begin raise '{CANARY}'; end $$"):
        with pytest.raises(asyncpg.PostgresError):
            execute(server.dsn, failing)

    told = server.log.read_text()
    assert "database system is ready" in told
    assert CANARY not in told


def test_only_the_password_opens_it(server: EmbeddedPostgres) -> None:
    password = server.log.parent / "postgres" / "password"

    assert password.stat().st_mode & 0o777 == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        execute(server.dsn.replace(password.read_text().strip(), "postgres"), "select 1")
