import json
import re
import socket
import ssl
from collections.abc import Callable

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from bridge.errors import ConfigError, DecodeError, PermanentError, TransientError
from consumers.postgres.errors import NoLockError
from consumers.runtime.calls import HandlerTimeoutError
from consumers.runtime.retry_policy import Failure, HandlerExitError, Tries, classify, delay_s, raised_at, retry_delay_s

REQUEST = aiohttp.RequestInfo(URL("http://there/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://there/"))


@pytest.mark.parametrize(
    ("exc", "failure"),
    [
        (TransientError("http_503", systemic=True), Failure("systemic", "http_503")),
        (TransientError("deadlock"), Failure("transient", "deadlock")),
        (NoLockError(), Failure("transient", "lock_timeout", blameless=True)),
        (HandlerTimeoutError(), Failure("transient", "handler_timeout")),
        (TimeoutError(), Failure("systemic", "timeout")),
        (ConnectionRefusedError(), Failure("systemic", "connection_refused")),
        (ConnectionResetError(), Failure("systemic", "connection_lost")),
        (ssl.SSLError("Mary Smith"), Failure("systemic", "tls")),
        (socket.gaierror("Mary Smith"), Failure("systemic", "os_error")),
        (aiohttp.ServerDisconnectedError(), Failure("systemic", "unreachable")),
        (aiohttp.ServerTimeoutError(), Failure("systemic", "timeout")),
        (aiohttp.ClientResponseError(REQUEST, (), status=503), Failure("systemic", "http_503")),
        (PermanentError("http_422"), Failure("permanent", "http_422")),
        (DecodeError("malformed"), Failure("poison", "malformed")),
        (ConfigError("Mary Smith"), Failure("bug", "config")),
        (ValueError("Mary Smith"), Failure("bug", "unexpected")),
    ],
)
def test_each_exception_has_one_class_and_a_code_without_a_value(exc: Exception, failure: Failure) -> None:
    assert classify(exc) == failure


@pytest.mark.parametrize("cause", [SystemExit("Mary Smith"), BaseExceptionGroup("group", [SystemExit("Mary Smith")])])
def test_what_would_end_the_process_is_named_as_the_handler_raised_it(cause: BaseException) -> None:
    exit_error = HandlerExitError()
    exit_error.__cause__ = cause

    assert (classify(exit_error), raised_at(exit_error, None)) == (Failure("bug", "unexpected"), "SystemExit")


@pytest.mark.parametrize(
    ("together", "failure"),
    [
        ([ConnectionRefusedError(), TimeoutError()], Failure("systemic", "connection_refused")),
        ([TimeoutError(), TransientError("busy")], Failure("transient", "busy")),
        ([PermanentError("refused"), TransientError("busy")], Failure("permanent", "refused")),
        ([PermanentError("refused"), KeyError("Mary Smith")], Failure("bug", "unexpected")),
        ([ExceptionGroup("inner", [TimeoutError()])], Failure("systemic", "timeout")),
        ([DecodeError("malformed"), PermanentError("refused")], Failure("poison", "malformed")),
    ],
)
def test_a_task_group_of_a_handler_fails_as_what_failed_in_it(together: list[Exception], failure: Failure) -> None:
    """A service that is away is no bug, whatever asks it."""
    assert classify(ExceptionGroup("Mary Smith", together)) == failure


@pytest.mark.parametrize("code", [KeyError("Mary Smith"), 422, b"refused", None, "nul\0", "\ud800", "two\nlines"])
@pytest.mark.parametrize("error", [PermanentError, TransientError])
def test_a_code_that_no_table_holds_is_a_bug_where_it_is_raised(error: Callable[..., Exception], code: object) -> None:
    """It would come up where the record is parked, and end the process; and a log would show what it holds."""
    with pytest.raises((AttributeError, ValueError)) as raised:
        error(code)

    assert classify(raised.value) == Failure("bug", "unexpected")


async def handle(_event: object, _context: object) -> None:
    """Only its module counts."""


def caught(of: Callable[[], object]) -> Exception:
    try:
        of()
    except Exception as exc:  # noqa: BLE001 - returned
        return exc
    raise AssertionError


@pytest.mark.parametrize(
    ("raises", "of", "where"),
    [
        (lambda: json.loads("Mary Smith"), handle, f"json.decoder.JSONDecodeError at {__name__}"),
        (lambda: json.dumps({1}, default=lambda _: 1 / 0), json.JSONDecoder, "ZeroDivisionError at json.encoder"),
        (lambda: json.loads("Mary Smith"), None, "json.decoder.JSONDecodeError at json.decoder"),
    ],
)
def test_what_was_raised_is_found_innermost_in_the_code_of_the_handlers_package(
    raises: Callable[[], object], of: Callable[..., object] | None, where: str
) -> None:
    """Not in the library that it calls; without a word of the text, which holds a value."""
    assert re.fullmatch(rf"{re.escape(where)}:\d+", raised_at(caught(raises), of))


def test_of_a_group_of_exceptions_the_worst_is_told() -> None:
    group = ExceptionGroup("Mary Smith", [TimeoutError(), caught(lambda: dict[str, int]()["Mary Smith"])])

    assert re.fullmatch(rf"KeyError at {re.escape(__name__)}:\d+", raised_at(group, handle))


BUSY, AWAY = Failure("transient", "busy"), Failure("systemic", "away")
OURS = Failure("transient", "lock", blameless=True)
AT_SINK, AT_RECORD = 5.0, 30.0  # ceilings of the delay


@pytest.mark.parametrize(
    ("failure", "calling", "last_passes", "after_s", "counted"),
    [
        (Failure("permanent", "no"), True, None, None, (9, 8, 1, None)),
        (Failure("poison", "no"), True, None, None, (9, 8, 1, None)),
        (Failure("bug", "no"), True, None, None, (9, 8, 1, None)),
        (BUSY, True, None, None, (9, 9, 2, 7)),
        (BUSY, True, 7, AT_RECORD, (9, 9, 1, 7)),
        (AWAY, True, None, AT_RECORD, (8, 9, 1, None)),
        (AWAY, False, None, AT_SINK, (8, 9, 1, None)),
        (BUSY, False, None, AT_SINK, (8, 9, 1, None)),
        (OURS, True, None, AT_SINK, (8, 9, 1, None)),
    ],
)
def test_only_a_failure_that_the_record_may_have_caused_counts_towards_parking(
    *, failure: Failure, calling: bool, last_passes: int | None, after_s: float | None, counted: tuple[int | None, ...]
) -> None:
    tries = Tries(9, 8, 1, last_passes, calling=calling)

    assert retry_delay_s(failure, tries, passes=7, attempts_max=2, spread=max) == after_s
    assert (tries.attempt, tries.failures, tries.charged, tries.passes) == counted


def test_the_first_delay_is_between_its_least_and_twice_that() -> None:
    assert [delay_s(1, spread=pick) for pick in (min, max)] == [0.2, 0.4]
