"""A small connection pool for PostgreSQL, and transactions that raise our own errors; wraps asyncpg.

All statements run in transactions. They are prepared once per connection (asyncpg caches by statement), and a session's
limits are startup parameters. Both need PostgreSQL itself, or PgBouncer in session mode, with these parameters in
`ignore_startup_parameters` and set for the role instead (`ALTER ROLE … SET`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

import asyncpg  # noqa: TID251 - this module wraps it

from bridge.errors import TransientError
from consumers.postgres.errors import NoLockError, translated, translated_connect

# Seconds; a healthy server on the same network accepts a connection in milliseconds, with TLS or load within one
# second.
CONNECT_TIMEOUT_S = 5.0
# Seconds to wait for a free connection: longer than a connect, far below a Kafka session (45 s).
ACQUIRE_TIMEOUT_S = 10.0
# Seconds; our longest statements (a batch of 200) take milliseconds, and migrations set their own limits.
COMMAND_TIMEOUT_S = 30.0
# Share of that time after which the server ends a statement, before our time limit would close the connection.
SERVER_SHARE = 0.9
# Seconds; only a claim contends for a partition's row, and after this time a retry is better than waiting.
LOCK_TIMEOUT_S = 5.0
# Seconds for which a process paused inside a transaction keeps its partition's row locked; longer than the timeout of a
# handler inside the transaction.
IDLE_IN_TRANSACTION_TIMEOUT_S = 30.0
ROLLBACK_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0

# asyncpg prepares and runs a statement in two messages. The server's timeouts do not apply in between, and a process
# paused there would keep its locks until its connection ends.
_END_STOPPED = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and usename = session_user
  and application_name = current_setting('application_name')
  and state = 'active' and wait_event = 'ClientRead'
  and state_change < clock_timestamp() - nullif(current_setting('idle_in_transaction_session_timeout'), '0')::interval
"""

_DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Connection(Protocol):
    """The methods of an asyncpg connection that handlers and our own statements use."""

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement, or several without arguments; return the command tag."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Return all rows."""

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """Return the first row, or None."""

    async def fetchval(self, query: str, *args: Any, column: int = 0) -> Any:
        """Return one value of the first row, or None."""

    def cursor(self, query: str, *args: Any, prefetch: int | None = None) -> Any:
        """Iterate over rows without loading all of them."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Open a savepoint."""


class Database:
    """Opens transactions; created by `open_database`."""

    def __init__(self, pool: asyncpg.Pool, *, acquire_timeout_s: float, rollback_timeout_s: float) -> None:
        """`pool` is initialised, possibly without connections yet."""
        self._pool = pool
        self._acquire_timeout_s = acquire_timeout_s
        self._rollback_timeout_s = rollback_timeout_s

    @asynccontextmanager
    async def transaction(self, *, calls_services: bool = False) -> AsyncIterator[Connection]:
        """Open a transaction: committed at the end of the block, rolled back if the block raises.

        A connection that broke, or failed for a `systemic` reason, is closed. If the block also `calls_services`, as
        handlers do, a timeout or an OS error may be from a service.

        Raises:
            TransientError: The database is away (`systemic`), or the same statements may succeed later. If the
                connection broke during the commit, its outcome is unknown.
            PermanentError: The same statements will never succeed; the code is the SQLSTATE.
        """
        connection = await self._acquire()
        transaction = connection.transaction()
        try:
            await transaction.start()
            yield connection
            await transaction.commit()
        except BaseException as failure:
            broken = not await self._rolled_back(connection, transaction)
            ours = translated(failure, broken=broken or (not calls_services and isinstance(failure, OSError)))
            if isinstance(ours, TransientError) and ours.systemic:
                _terminate(connection)
            if isinstance(ours, NoLockError):
                with suppress(*_DRIVER_ERRORS):
                    await connection.execute(_END_STOPPED)
            if ours is None:
                raise
            raise ours from None  # the driver's message and detail contain values of the row
        finally:
            await self._release(connection)

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Return the rows of a single statement in its own transaction: a third of the round trips."""
        connection = await self._acquire()
        try:
            rows: list[Any] = await connection.fetch(query, *args)
        except BaseException as failure:
            # Handlers do not run here, so an OS error is the connection's.
            ours = translated(failure, broken=_is_closed(connection) or isinstance(failure, OSError))
            if isinstance(ours, TransientError) and ours.systemic:
                _terminate(connection)
            if ours is None:
                raise
            raise ours from None
        finally:
            await self._release(connection)
        return rows

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Return the first value of the first row, or None; like `fetch`."""
        rows = await self.fetch(query, *args)
        return rows[0][0] if rows else None

    async def _acquire(self) -> Any:
        try:
            return await self._pool.acquire(timeout=self._acquire_timeout_s)
        except Exception as failure:
            ours = translated_connect(failure)
            if ours is None:
                raise
            raise ours from None

    async def _release(self, connection: Any) -> None:
        # The transaction has ended: the pool closes a connection that fails here, and nothing is lost.
        with suppress(*_DRIVER_ERRORS):
            await self._pool.release(connection, timeout=self._rollback_timeout_s)

    async def _rolled_back(self, connection: Any, transaction: Any) -> bool:
        """Roll back within a time limit; False if that failed and the connection was closed, which also rolls back."""
        try:
            async with asyncio.timeout(self._rollback_timeout_s):
                await transaction.rollback()
        except _DRIVER_ERRORS:  # TimeoutError is an OSError
            _terminate(connection)
            return False
        except BaseException:  # cancelled again
            _terminate(connection)
            raise
        return True


@asynccontextmanager
async def open_database(
    dsn: str,
    *,
    size: int,
    application_name: str,
    command_timeout_s: float = COMMAND_TIMEOUT_S,
    acquire_timeout_s: float = ACQUIRE_TIMEOUT_S,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    idle_in_transaction_timeout_s: float = IDLE_IN_TRANSACTION_TIMEOUT_S,
    reset: bool = True,
) -> AsyncIterator[Database]:
    """Open a pool of at most `size` connections, one per transaction; the server may still be down.

    For a pair of servers, `dsn` has several hosts and `target_session_attrs=read-write`. `command_timeout_s` is for a
    statement and its response, `acquire_timeout_s` for getting a connection, even a new one. `reset` costs a round
    trip; without it, changes of session state persist, but our own statements make none.
    """
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,  # no minimum: a pool that restores it logs the driver's errors, with values
        init_size=0,
        max_size=size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        reset=None if reset else _leave,
        server_settings={
            "application_name": application_name,
            "default_transaction_isolation": "read committed",  # as the statements of the ledger require
            "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout_s),
            "jit": "off",  # not for short statements over arrays, whose size the planner only guesses
            "lock_timeout": _milliseconds(lock_timeout_s),
            "statement_timeout": _milliseconds(command_timeout_s * SERVER_SHARE),
            "TimeZone": "UTC",
        },
    )
    await pool
    try:
        yield Database(
            pool, acquire_timeout_s=acquire_timeout_s, rollback_timeout_s=min(ROLLBACK_TIMEOUT_S, command_timeout_s)
        )
    finally:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await pool.close()
        except _DRIVER_ERRORS:
            pool.terminate()


def _is_closed(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has already taken back the connection
        return True


async def _leave(_: Any) -> None:
    """Leave the session unchanged."""


def _terminate(connection: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool has already taken back the connection
        connection.terminate()


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
