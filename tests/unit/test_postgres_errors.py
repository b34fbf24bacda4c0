"""The classification of rare database failures."""

import ssl
from typing import Any

import pytest
from asyncpg import exceptions  # noqa: TID251 - what the wrapper translates

from bridge.errors import PermanentError, TransientError
from consumers.postgres.errors import NoConnectionError, translated, translated_connect
from consumers.postgres.pool import Database


@pytest.mark.parametrize(
    ("failure", "code", "systemic"),
    [
        # The sink is away.
        (exceptions.DiskFullError, "disk_full", True),
        (exceptions.TooManyConnectionsError, "too_many_connections", True),
        (exceptions.CannotConnectNowError, "cannot_connect_now", True),
        (exceptions.UndefinedTableError, "no_table", True),
        (exceptions.DataCorruptedError, "database_fault", True),
        (exceptions.ConnectionDoesNotExistError, "connection_lost", True),
        # It may not be met again.
        (exceptions.IdleInTransactionSessionTimeoutError, "idle_in_transaction", False),
        (exceptions.ObjectInUseError, "object_in_use", False),
        (exceptions.InvalidCachedStatementError, "stale_plan", False),
        (exceptions.DeadlockDetectedError, "deadlock", False),
        (exceptions.StatementCompletionUnknownError, "serialization_failure", False),
        # It will be.
        (exceptions.NotNullViolationError, "23502", None),
        (exceptions.InFailedSQLTransactionError, "25P02", None),
        (exceptions.InterfaceError, "driver_misused", None),
        (exceptions.DataError, "22000", None),
    ],
)
def test_each_failure_is_of_the_sink_of_the_moment_or_of_the_record(
    failure: type[Exception], code: str, systemic: object
) -> None:
    ours = translated(failure("Jane Doe"), broken=False)

    assert isinstance(ours, PermanentError if systemic is None else TransientError)
    assert (ours.code, getattr(ours, "systemic", None)) == (code, systemic)
    assert "Jane" not in str(ours)


def test_why_the_server_closed_the_connection_counts() -> None:
    failure = exceptions.ConnectionDoesNotExistError("closed in the middle")
    failure.__cause__ = exceptions.AdminShutdownError("ended")

    ours = translated(failure, broken=True)

    assert ours is not None
    assert ours.code == "shutting_down"


@pytest.mark.parametrize("failure", [TimeoutError(), OSError(), ConnectionResetError()])
def test_an_error_of_the_system_is_the_databases_only_if_its_connection_broke(failure: OSError) -> None:
    ours = translated(failure, broken=True)

    assert isinstance(ours, TransientError)
    assert ours.systemic
    assert translated(failure, broken=False) is None


@pytest.mark.parametrize("failure", [ValueError(), PermanentError("refused")])
def test_errors_of_others_are_left_alone(failure: Exception) -> None:
    assert translated(failure, broken=True) is None
    assert translated_connect(KeyError()) is None


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TimeoutError(), "no_connection"),
        (ssl.SSLError(), "tls"),
        (ConnectionRefusedError(), "connection_refused"),
        (FileNotFoundError(), "no_file"),
        (OSError(), "unreachable"),
        (exceptions.TargetServerAttributeNotMatched(""), "unreachable"),
        (exceptions.UndefinedFunctionError(""), "cannot_connect"),
    ],
)
def test_a_connection_that_cannot_be_had_is_systemic(failure: Exception, code: str) -> None:
    ours = translated_connect(failure)

    assert isinstance(ours, NoConnectionError)
    assert (ours.code, ours.systemic) == (code, True)


class _Mute:
    """A pool of one connection that never responds."""

    def __init__(self, failure: OSError) -> None:
        self.terminated = False
        self._failure = failure

    async def acquire(self, *, timeout: float) -> "_Mute":  # noqa: ASYNC109 - the driver's name
        del timeout
        return self

    async def release(self, connection: object, *, timeout: float) -> None:  # noqa: ASYNC109 - as above
        del connection, timeout

    async def fetch(self, query: str) -> None:
        del query
        raise self._failure

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        self.terminated = True


@pytest.mark.parametrize("failure", [TimeoutError(), OSError("no route to host")])
async def test_a_connection_that_gives_no_answer_is_not_kept(failure: OSError) -> None:
    pool: Any = _Mute(failure)

    with pytest.raises(TransientError, match=r"no_answer|connection_lost"):
        await Database(pool, acquire_timeout_s=1.0, rollback_timeout_s=1.0).fetch("select 1")

    assert pool.terminated
