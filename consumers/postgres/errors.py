"""Translate failures of the database by SQLSTATE, never by the driver's message, which contains values."""

import ssl

import asyncpg  # noqa: TID251 - part of the wrapper

from bridge.errors import BridgeError, ConfigError, PermanentError, TransientError

# PostgreSQL 18, appendix A "Error Codes". Failures of every event: the database is away, full, rejects our user, or
# lacks a migration.
_SYSTEMIC = {
    "25006": "read_only",  # read_only_sql_transaction: the server has become a standby
    "3D000": "no_database",
    "3F000": "no_schema",
    "42P01": "no_table",
    "42501": "not_permitted",
    "53100": "disk_full",
    "53300": "too_many_connections",
    "57P01": "shutting_down",
    "57P02": "shutting_down",
    "57P03": "cannot_connect_now",
    "57P04": "no_database",
    "57P05": "connection_lost",  # idle_session_timeout
}
_SYSTEMIC_CLASSES = {
    "08": "connection_lost",
    "28": "authentication_failed",
    "53": "no_resources",
    "58": "database_fault",  # system_error: input/output
    "F0": "database_fault",  # config_file_error
    "XX": "database_fault",  # internal_error, corruption
}
# Failures that may not recur with the same statements.
_TRANSIENT = {
    "0A000": "stale_plan",  # only as InvalidCachedStatementError: a table of a prepared statement has changed
    "25P03": "idle_in_transaction",
    "25P04": "transaction_timeout",
    "40P01": "deadlock",
    "55006": "object_in_use",
    "57014": "statement_timeout",
}
_TRANSIENT_CLASSES = {"40": "serialization_failure"}
# In order of precedence.
_CONNECT: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "no_connection"),
    (ssl.SSLError, "tls"),
    (ConnectionRefusedError, "connection_refused"),
    (FileNotFoundError, "no_file"),  # of a certificate file, or the server's socket
    (OSError, "unreachable"),
    (asyncpg.InterfaceError, "unreachable"),
    (asyncpg.InternalClientError, "unreachable"),
)


class NoConnectionError(TransientError):
    """No connection could be opened, so no record is at fault."""

    def __init__(self, code: str) -> None:
        super().__init__(code, systemic=True)


class NoLockError(TransientError):
    """Another session, such as a migration, holds a lock for longer than the timeout; no record is at fault."""

    code = "lock_timeout"
    blameless = True

    def __init__(self) -> None:
        super().__init__(self.code)


def translated(failure: BaseException, *, broken: bool) -> BridgeError | None:
    """Translate a failure inside a transaction; None if it is not from the database.

    A timeout or an OS error may be from another service that a handler calls. It counts as the database's if
    `broken`: the connection is closed or cannot roll back, or no other service is called.
    """
    if isinstance(failure, BridgeError):
        return None
    if isinstance(failure, asyncpg.PostgresError):
        return _of_server(failure)
    if isinstance(failure, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return TransientError("connection_lost", systemic=True) if broken else PermanentError("driver_misused")
    if broken and isinstance(failure, OSError):
        return TransientError("no_answer" if isinstance(failure, TimeoutError) else "connection_lost", systemic=True)
    return None


def translated_connect(failure: BaseException) -> BridgeError | None:
    """Translate a failure to open a connection; None if it is a bug."""
    if isinstance(failure, ValueError):  # ClientConfigurationError is one; a malformed port raises a bare one
        form = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        if isinstance(failure.__context__, OSError):  # the driver looked only for ~/.postgresql/root.crt
            form = f"sslmode=verify-full needs a root certificate, {form}?sslmode=verify-full&sslrootcert=FILE"
        return ConfigError(f"the DSN of the database cannot be used: {form}")
    if isinstance(failure, asyncpg.PostgresError):
        known = _of_server(failure)
        return NoConnectionError(known.code if isinstance(known, TransientError) else "cannot_connect")
    for kind, code in _CONNECT:
        if isinstance(failure, kind):
            return NoConnectionError(code)
    return None


def _of_server(failure: asyncpg.PostgresError) -> BridgeError:
    state = failure.sqlstate or ""
    if isinstance(failure.__cause__, asyncpg.PostgresError):
        state = failure.__cause__.sqlstate or state  # why the server closed the connection
    systemic = _SYSTEMIC.get(state) or _SYSTEMIC_CLASSES.get(state[:2])
    if systemic:
        return TransientError(systemic, systemic=True)
    if state == "0A000" and not isinstance(failure, asyncpg.InvalidCachedStatementError):
        return PermanentError(state)
    if state == "55P03":
        return NoLockError()
    transient = _TRANSIENT.get(state) or _TRANSIENT_CLASSES.get(state[:2])
    return TransientError(transient) if transient else PermanentError(state or "unknown")
