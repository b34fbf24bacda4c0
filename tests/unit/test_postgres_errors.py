"""What each failure of the database means, for those that are hard to bring about."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from asyncpg import exceptions  # noqa: TID251 - what the door translates

from bridge.errors import PermanentError, TransientError
from consumers.postgres.errors import NoConnectionError, translated, translated_connect
from consumers.postgres.pool import Database


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (exceptions.DiskFullError, "disk_full"),
        (exceptions.TooManyConnectionsError, "too_many_connections"),
        (exceptions.CannotConnectNowError, "cannot_connect_now"),
        (exceptions.AdminShutdownError, "shutting_down"),
        (exceptions.ReadOnlySQLTransactionError, "read_only"),
        (exceptions.InvalidPasswordError, "authentication_failed"),
        (exceptions.DataCorruptedError, "database_fault"),
        (exceptions.ConnectionDoesNotExistError, "connection_lost"),
    ],
)
def test_the_sink_being_away_is_systemic(failure: type[Exception], code: str) -> None:
    ours = translated(failure("Jane Doe"), broken=False)

    assert isinstance(ours, TransientError)
    assert (ours.code, ours.systemic) == (code, True)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (exceptions.IdleInTransactionSessionTimeoutError, "idle_in_transaction"),
        (exceptions.QueryCanceledError, "statement_timeout"),
        (exceptions.ObjectInUseError, "object_in_use"),
        (exceptions.InvalidCachedStatementError, "stale_plan"),
        (exceptions.StatementCompletionUnknownError, "serialization_failure"),
    ],
)
def test_what_may_not_be_met_again_is_transient(failure: type[Exception], code: str) -> None:
    ours = translated(failure("Jane Doe"), broken=False)

    assert isinstance(ours, TransientError)
    assert (ours.code, ours.systemic) == (code, False)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (exceptions.NotNullViolationError, "23502"),
        (exceptions.InFailedSQLTransactionError, "25P02"),
        (exceptions.InterfaceError, "driver_misused"),
        (exceptions.DataError, "22000"),
    ],
)
def test_what_will_be_met_again_is_permanent(failure: type[Exception], code: str) -> None:
    ours = translated(failure("Jane Doe"), broken=False)

    assert isinstance(ours, PermanentError)
    assert ours.code == code
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
    """A pool of one connection that answers nothing."""

    def __init__(self) -> None:
        self.terminated = False

    async def acquire(self, *, timeout: float) -> _Mute:  # noqa: ASYNC109 - the driver's name
        del timeout
        return self

    async def release(self, connection: object, *, timeout: float) -> None:  # noqa: ASYNC109 - as above
        del connection, timeout

    async def fetch(self, query: str) -> None:
        del query
        raise TimeoutError

    def is_closed(self) -> bool:
        return False

    def terminate(self) -> None:
        self.terminated = True


async def test_a_connection_that_gives_no_answer_is_not_kept() -> None:
    pool: Any = _Mute()

    with pytest.raises(TransientError, match="no_answer"):
        await Database(pool, acquire_timeout_s=1.0, rollback_timeout_s=1.0).fetch("select 1")

    assert pool.terminated
