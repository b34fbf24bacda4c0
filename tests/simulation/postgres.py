"""PostgreSQL for simulated processes: the real server, to which the world sends one statement at a time.

The world waits, and no time passes in it, until the statement is done or waits for a lock of another session; then the
next actor goes on. So the seed decides the order, locks included. The limits of sessions (`lock_timeout` and the like)
count the world's seconds. asyncpg runs on a loop of its own, which runs only while the world waits for it. Functions of
the schema `world` stand before the server's own of time and of chance; nothing is vacuumed or analyzed, and each
statement has one plan, so rows come in the same order again.

A server process that waits for a lock is stopped (SIGSTOP), and goes on alone once it has the lock: the server would
let those who wait for one row race for it. Circles are found here, for the same reason.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg  # noqa: TID251 - the fake of its wrapper

from consumers.postgres import pool
from consumers.postgres.pool import Database
from tests.postgres import EmbeddedPostgres, execute
from tests.simulation.loop import PROCESS, Process
from tests.simulation.world import World

# Real seconds after which a statement is looked at, whether it waits for a lock.
LOOK_S = 0.01
SWEEP_S = 5.0
_Call = Callable[[], Awaitable[Any]]
_Doing = asyncio.Task[Any]
_Answered = asyncio.Future[Any]
_BLOCKING = "select pid, pg_blocking_pids(pid) from unnest($1::int[]) as pid"
_FUNCTIONS = """
create schema world;
create sequence world.drawn;
create function world.clock_timestamp() returns timestamptz language sql
  as $$ select to_timestamp(pg_read_file('{clock}')::float8) $$;
create function world.now() returns timestamptz language sql as $$ select world.clock_timestamp() $$;
create function world.gen_random_uuid() returns uuid language sql
  as $$ select md5(nextval('world.drawn')::text)::uuid $$
"""
_TABLES = """
select format('%I.%I', schemaname, tablename) from pg_tables
where schemaname !~ '^(pg_|information_schema$|backup$)' and tablename not in ('schema_migration', 'timer') order by 1
"""

_RESTART = "select setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false) from pg_sequences"


@contextmanager
def a_server() -> Iterator[str]:
    """Start an embedded server and give its DSN."""
    with TemporaryDirectory(prefix="simulation-") as directory:
        Path(directory).chmod(0o755)
        server = EmbeddedPostgres(Path(directory))
        server.start()
        execute(server.dsn, "alter system set autovacuum = off", "select pg_reload_conf()")
        try:
            yield server.dsn
        finally:
            server.kill()  # a process of it may be stopped
            server.close()


class Server:
    """A database of the real server and the connections to it, which one world after another uses."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # it reports what is rolled back
        self.free: list[Any] = []
        self._admin = self.connect()
        clock = Path(self.rows("show data_directory")[0][0], f"clock_of_{os.getpid()}")
        self._clock = os.open(clock, os.O_CREAT | os.O_WRONLY)
        clock.chmod(0o644)
        self.set_clock(0)
        self.execute(_FUNCTIONS.format(clock=clock.name))

    def set_clock(self, now: float) -> None:
        """Have the server's time be `now`, in Unix seconds."""
        os.pwrite(self._clock, f"{now:020.6f}".encode(), 0)

    def begin(self, call: _Call) -> _Doing:
        async def run() -> Any:
            return await call()

        return self._loop.create_task(run())

    def wait(self, doing: _Doing, timeout_s: float | None = None) -> bool:
        """Let the real loop run, within a step of the world's, until something is done; return whether it is."""
        world = asyncio._get_running_loop()
        task = asyncio.current_task(world) if world else None
        if world is not None and task is not None:
            asyncio.tasks._leave_task(world, task)
        asyncio._set_running_loop(None)
        over = asyncio.Event()

        def stop(_: object = None) -> None:
            over.set()
            self._loop.stop()

        doing.add_done_callback(stop)
        timer = self._loop.call_later(timeout_s, stop) if timeout_s else None
        try:
            while not over.is_set():  # a callback of an earlier wait may still stop the loop
                self._loop.run_forever()
        finally:
            if timer:
                timer.cancel()
            doing.remove_done_callback(stop)
            asyncio._set_running_loop(world)
            if world is not None and task is not None:
                asyncio.tasks._enter_task(world, task)
        return doing.done()

    def do(self, call: _Call) -> Any:
        doing = self.begin(call)
        self.wait(doing)
        return doing.result()

    def connect(self) -> Any:
        # As of the product's own sessions, but for limits in real seconds.
        own = {"default_transaction_isolation": "read committed", "jit": "off", "deadlock_timeout": "1h"}
        own |= {"plan_cache_mode": "force_generic_plan", "synchronous_commit": "off"}
        return self.do(lambda: asyncpg.connect(self._dsn, server_settings=own))

    def execute(self, *statements: str) -> None:
        for statement in statements:
            self.do(partial(self._admin.execute, statement))

    def rows(self, query: str, *args: Any) -> list[Any]:
        found: list[Any] = self.do(lambda: self._admin.fetch(query, *args))
        return found

    def tables(self) -> list[str]:
        return [name for (name,) in self.rows(_TABLES)]

    def empty(self) -> None:
        """Forget what a world has written; tables that are as new stay so."""
        written = [name for name in self.tables() if self.rows("select pg_relation_size($1::regclass) > 0", name)[0][0]]
        self.execute(
            "drop schema if exists backup cascade", *([f"truncate {', '.join(written)} cascade"] if written else [])
        )
        self.rows(_RESTART)

    def backup(self) -> None:
        tables = [f"create table backup.t{n} as table {name}" for n, name in enumerate(self.tables())]
        self.execute("drop schema if exists backup cascade", "create schema backup", *tables)

    def restore(self) -> None:
        """Restore the backup, if there is one."""
        if self.rows("select from pg_namespace where nspname = 'backup'"):
            tables = self.tables()
            self.execute("begin", "set local session_replication_role = replica", f"truncate {', '.join(tables)}")
            for n, name in enumerate(tables):
                self.execute(f"insert into {name} overriding system value select * from backup.t{n}")  # noqa: S608 - ours
            self.execute("commit")


class Postgres:
    """The database of one world.

    `state` is `up`, `refusing` or `silent`; `cuts` and `fails` are the shares of statements whose connection is cut, or
    that fail without a fault of the statement.
    """

    def __init__(self, world: World, server: Server) -> None:
        self.world, self.server = world, server
        self.rng = world.stream("postgres")
        self.state = "up"
        self.slow_s = self.cuts = self.fails = 0.0
        self.sessions: list[Session] = []
        self._blocked: dict[Session, tuple[_Doing, _Answered]] = {}
        self._held: list[tuple[Session, _Call, _Answered]] = []
        world.later(SWEEP_S, self._sweep)

    def database(self, size: int) -> Database:
        made: Any = Pool(self, size)
        return Database(made, acquire_timeout_s=pool.ACQUIRE_TIMEOUT_S, rollback_timeout_s=pool.ROLLBACK_TIMEOUT_S)

    def set_state(self, state: str) -> None:
        self.state = state
        if state == "refusing":
            self.gone(self.sessions)
        if state == "up":
            held, self._held = self._held, []
            for session, call, answered in held:
                self.arrive(session, call, answered)
                if session.closed:  # its client has left long ago
                    self.end(session)

    def backup(self) -> None:
        self.server.backup()

    def restore(self) -> None:
        """Restore the backup; all connections are lost."""
        if self.state == "up":
            self.gone(self.sessions)
            self.server.restore()

    def holds(self, session: "Session") -> bool:
        return any(each is session for each, _, _ in self._held)

    def ended(self, process: Process) -> None:
        """End the sessions of a process that has ended."""
        self.gone([each for each in self.sessions if each.process is process])

    def gone(self, sessions: "Sequence[Session]") -> None:
        """End sessions as the server does when their connections are closed."""
        for session in list(sessions):
            self.end(session)

    def connect(self) -> "Session":
        server = self.server
        session = Session(self, server.free.pop() if server.free else server.connect())
        self.sessions.append(session)
        return session

    def arrive(self, session: "Session", call: _Call, answered: _Answered) -> None:
        """Run a received statement; resolve `answered` once it is done."""
        self.server.set_clock(self.world.true_clock.now())
        name, asked = session.name, getattr(call, "args", ())[:1]
        answered.add_done_callback(lambda _: self.world.mark(name, asked, _outcome(answered)))
        if session.dead or self.state == "refusing":
            _resolve(answered, asyncpg.ConnectionDoesNotExistError("closed"))
            return
        if self.state == "silent":
            self._held.append((session, call, answered))
            return
        if self.rng.random() < self.fails:
            _resolve(answered, asyncpg.DeadlockDetectedError("made up"))
            return
        cut = self.rng.random() < self.cuts
        if cut and self.rng.random() < 0.5:
            self.end(session)
            _resolve(answered, asyncpg.ConnectionDoesNotExistError("cut before"))
            return
        doing = self.server.begin(call)
        if self._is_done(session, doing, answered):
            result: Any = doing.exception() or doing.result()
            if cut:
                self.end(session)
                result = asyncpg.ConnectionDoesNotExistError("cut after")
            _resolve(answered, result)
        else:
            self.world.note(session.name, "waits for a lock")
            self.world.later(pool.LOCK_TIMEOUT_S, lambda: self._time_out(session, doing))
        self._look()

    def _is_done(self, session: "Session", doing: _Doing, answered: _Answered) -> bool:
        """Wait until a statement is done, or waits for another session that the world keeps waiting."""
        while not self.server.wait(doing, LOOK_S):
            blocking = self._blocking(session)
            if session.pid in blocking:
                self._cancel(session, doing, answered, asyncpg.DeadlockDetectedError("a circle"))
            elif blocking:
                self._blocked[session] = (doing, answered)
                os.kill(session.pid, signal.SIGSTOP)
                return False
        session.idle_since = self.world.loop.time()
        return True

    def _blocking(self, session: "Session") -> set[int]:
        """Return for whom a session waits, and for whom these wait: perhaps for itself."""
        waiting = dict(self.server.rows(_BLOCKING, [session.pid, *(each.pid for each in self._blocked)]))
        found, look = set[int](), list(waiting[session.pid])
        while look:
            pid = look.pop()
            if pid not in found:
                found.add(pid)
                look += waiting.get(pid, ())
        return found

    def _look(self) -> None:
        """Resume, one after the other, the sessions that have got their locks."""
        while self._blocked:
            blocking = dict(self.server.rows(_BLOCKING, [each.pid for each in self._blocked]))
            session = next((each for each in self._blocked if not blocking[each.pid]), None)
            if session is None:
                return
            doing, answered = self._blocked.pop(session)
            os.kill(session.pid, signal.SIGCONT)
            if self._is_done(session, doing, answered):
                self.world.soon(partial(_resolve, answered, doing.exception() or doing.result()))

    def _time_out(self, session: "Session", doing: _Doing) -> None:
        if session in self._blocked and self._blocked[session][0] is doing:
            self.cancel(session, asyncpg.LockNotAvailableError("after a time-out"))
            self._look()

    def cancel(self, session: "Session", failure: Exception) -> None:
        """Cancel the waiting statement of a session."""
        if session in self._blocked:
            doing, answered = self._blocked.pop(session)
            os.kill(session.pid, signal.SIGCONT)
            self._cancel(session, doing, answered, failure)

    def _cancel(self, session: "Session", doing: _Doing, answered: _Answered, failure: Exception) -> None:
        self.server.rows("select pg_cancel_backend($1)", session.pid)
        self.server.wait(doing)
        doing.exception()
        _resolve(answered, failure)

    def end(self, session: "Session") -> None:
        """Roll back the open transaction of a session."""
        if not session.dead:
            session.dead = True
            self.sessions.remove(session)
            self.cancel(session, asyncpg.ConnectionDoesNotExistError("ended"))
            self.server.do(session.real.reset)
            self.server.free.append(session.real)
            self._look()

    def _sweep(self) -> None:
        """End sessions that are idle in a transaction for too long, such as those of a frozen process."""
        since = self.world.loop.time() - pool.IDLE_IN_TRANSACTION_TIMEOUT_S
        for each in list(self.sessions):
            if each.real.is_in_transaction() and each not in self._blocked and each.idle_since < since:
                self.world.note(each.name, "is idle in a transaction for too long")
                self.end(each)
        self.world.later(SWEEP_S, self._sweep)


class Session:
    """As an asyncpg connection."""

    def __init__(self, postgres: Postgres, real: Any) -> None:
        self._postgres = postgres
        self.real = real
        self.pid = real.get_server_pid()
        self.process = PROCESS.get()
        self.name = self.process.name if self.process else "operator"
        self.dead = False
        self.closed = False  # by the client
        self.idle_since = postgres.world.loop.time()
        self.execute, self.fetch, self.fetchrow, self.fetchval = (
            partial(self.ask, getattr(real, name)) for name in ("execute", "fetch", "fetchrow", "fetchval")
        )

    def transaction(self) -> "Transaction":
        return Transaction(self)

    def is_closed(self) -> bool:
        return self.dead or self.closed

    def terminate(self) -> None:
        """Close the connection; a server that hangs first does what it was sent before, be it a commit."""
        self.closed = True
        if not self._postgres.holds(self):
            self._postgres.end(self)

    async def ask(self, call: Callable[..., Awaitable[Any]], *args: Any, **_: Any) -> Any:
        """Send a statement, run it, and get the result, with a delay each way."""
        postgres = self._postgres
        if self.is_closed():
            raise asyncpg.InterfaceError("connection is closed")
        await asyncio.sleep(postgres.rng.uniform(0.0002, 0.002) + postgres.slow_s * postgres.rng.random())
        answered: _Answered = postgres.world.loop.create_future()
        postgres.arrive(self, partial(call, *args), answered)
        try:
            async with asyncio.timeout(pool.COMMAND_TIMEOUT_S):
                result = await answered
        except asyncio.CancelledError:
            postgres.cancel(self, asyncpg.QueryCanceledError("by its client"))
            raise
        await asyncio.sleep(postgres.rng.uniform(0.0002, 0.002))
        return result


class Transaction:
    """As asyncpg's: a transaction, or a savepoint within one."""

    def __init__(self, session: Session) -> None:
        real = session.real.transaction()
        self.start, self.commit, self.rollback = (
            partial(session.ask, each) for each in (real.start, real.commit, real.rollback)
        )


class Pool:
    """As asyncpg's pool."""

    def __init__(self, postgres: Postgres, size: int) -> None:
        self._postgres = postgres
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Session] = []

    async def acquire(self, *, timeout: float) -> Session:  # noqa: ASYNC109 - as asyncpg's
        async with asyncio.timeout(timeout):
            await self._slots.acquire()
            try:
                return await self._connected()
            except BaseException:
                self._slots.release()
                raise

    async def _connected(self) -> Session:
        postgres = self._postgres
        while self._idle:
            session = self._idle.pop()
            if not session.is_closed():
                return session
        while postgres.state == "silent":  # noqa: ASYNC110 - a server that hangs sends nothing
            await asyncio.sleep(0.5)
        await asyncio.sleep(postgres.rng.uniform(0.001, 0.01))
        if postgres.state != "up":
            raise ConnectionRefusedError
        return postgres.connect()

    async def release(self, session: Session, *, timeout: float) -> None:  # noqa: ARG002, ASYNC109 - as asyncpg's
        if not session.is_closed() and session.real.is_in_transaction():
            session.terminate()
        self._idle.append(session)
        self._slots.release()


def _outcome(answered: _Answered) -> object:
    return "cancelled" if answered.cancelled() else answered.exception() or answered.result()


def _resolve(answered: _Answered, result: Any) -> None:
    if answered.done():
        return
    if isinstance(result, BaseException):
        answered.set_exception(result)
    else:
        answered.set_result(result)
