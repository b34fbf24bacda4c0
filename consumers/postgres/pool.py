"""The door to PostgreSQL: a pool of few connections, and transactions that fail with our own errors.

Everything happens in a transaction. Statements are prepared once per connection (asyncpg does so by their text), and a
session's limits are start-up parameters. Both need PostgreSQL itself, or PgBouncer in session mode: with these
parameters in `ignore_startup_parameters`, and set for the role instead (`ALTER ROLE … SET`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

import asyncpg  # noqa: TID251 - this is the door

from bridge.errors import TransientError
from consumers.postgres.errors import NoLockError, translated, translated_connect

# A healthy server on the same network answers a connect in milliseconds; TLS and a busy postmaster within a second.
CONNECT_TIMEOUT_S = 5.0
# How long to wait for a free connection: longer than a connect, far below a Kafka session (45 s).
ACQUIRE_TIMEOUT_S = 10.0
# Our longest statements (a batch of 200) take milliseconds; migrations bring limits of their own.
COMMAND_TIMEOUT_S = 30.0
# Share of that time after which the server ends a statement: mostly it is first, and the connection stays usable.
SERVER_SHARE = 0.9
# A partition's row is contended only by a claim; after this time it is better to retry than to queue.
LOCK_TIMEOUT_S = 5.0
# A process that is stopped inside a transaction keeps the row of its partition locked for this time. Longer than the
# time-out of a handler that works inside the transaction.
IDLE_IN_TRANSACTION_TIMEOUT_S = 30.0
ROLLBACK_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0

# asyncpg prepares a statement and runs it in two messages. Between them the server's time-outs do not apply, and a
# process that is stopped there would keep its locks until its connection ends.
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
        """Iterate over rows without holding them all."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Open a savepoint."""


class Database:
    """Opens transactions; made by `open_database`."""

    def __init__(self, pool: asyncpg.Pool, *, acquire_timeout_s: float, rollback_timeout_s: float) -> None:
        """Take a pool that is ready and may hold no connection yet."""
        self._pool = pool
        self._acquire_timeout_s = acquire_timeout_s
        self._rollback_timeout_s = rollback_timeout_s

    @asynccontextmanager
    async def transaction(self, *, calls_services: bool = False) -> AsyncIterator[Connection]:
        """Open a transaction: committed at the end of the block, rolled back if the block raises.

        A connection that broke, or that failed for a `systemic` reason, is closed. If the block
        `calls_services` too, as handlers do, a time-out or an error of the operating system may be theirs.

        Raises:
            TransientError: The database is away (`systemic`), or the same statements may work later. If the connection
                broke during the commit, it is not known whether that happened.
            PermanentError: The same statements will never work; the code is the SQLSTATE.
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
            raise ours from None  # the driver's text and detail carry values of the row
        finally:
            await self._release(connection)

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """Return the rows of one statement, which is a transaction of its own: a third of the round trips."""
        connection = await self._acquire()
        try:
            rows: list[Any] = await connection.fetch(query, *args)
        except BaseException as failure:
            # No handler runs here, so an error of the operating system is the connection's.
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
        """Return the first value of the first row, or None; as `fetch`."""
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
        # The transaction has ended: a connection that fails here is closed by the pool, and nothing is lost.
        with suppress(*_DRIVER_ERRORS):
            await self._pool.release(connection, timeout=self._rollback_timeout_s)

    async def _rolled_back(self, connection: Any, transaction: Any) -> bool:
        """Roll back within a bound; False if that failed and the connection was closed, which rolls back as well."""
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
    """Open a pool of at most `size` connections, one for each transaction; the server need not be up yet.

    For a pair of servers, `dsn` has more than one host and `target_session_attrs=read-write`. `command_timeout_s` is
    for a statement and its answer, `acquire_timeout_s` for a connection, a new one included. Without `reset`, which
    takes a round trip, what a transaction has changed of the session stays; our own statements change nothing.
    """
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,  # no floor: a pool that restores one logs the driver's errors, with values
        init_size=0,
        max_size=size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        reset=None if reset else _leave,
        server_settings={
            "application_name": application_name,
            "default_transaction_isolation": "read committed",  # what the statements of the ledger are written for
            "idle_in_transaction_session_timeout": _milliseconds(idle_in_transaction_timeout_s),
            "jit": "off",  # short statements over arrays, whose size the planner only guesses
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
    except asyncpg.InterfaceError:  # the pool has taken the lost connection back
        return True


async def _leave(_: Any) -> None:
    """Leave the session as it is."""


def _terminate(connection: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool has taken the lost connection back
        connection.terminate()


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
