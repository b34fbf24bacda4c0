"""Decide after a failed attempt at a record whether to retry or to park it, by the class of the failure.

- `systemic`: any record would fail, as when the sink is unreachable. Retried without limit.
- `transient`: a later attempt may succeed. Retried, then parked after the handler's number of attempts.
- `permanent`, raised by the handler: no later attempt can succeed. Parked at once.
- `poison`: the record cannot be decoded (a poison pill). Parked at once.
- `bug`: an unexpected exception. Parked at once, and logged with its location.
"""

import ssl
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import aiohttp

from bridge.errors import BridgeError, DecodeError, PermanentError, TransientError
from bridge.runtime.backoff import Spread, backoff_s

FailureClass = Literal["systemic", "transient", "permanent", "poison", "bug"]

# Seconds between attempts at a record that may be at fault: random, from the first value to a ceiling that doubles.
DELAY_FIRST_S = 0.2
DELAY_MAX_S = 30.0
# Seconds between attempts while the record is not at fault: a partial outage or a lock may be short.
SYSTEMIC_MAX_S = 5.0

TIMEOUT = "handler_timeout"
UNEXPECTED = "unexpected"
ID_CONFLICT = "id_conflict"

_OURS: tuple[tuple[type[BridgeError], FailureClass], ...] = ((PermanentError, "permanent"), (DecodeError, "poison"))
# Exceptions of a handler while its service is unreachable; the first match applies. `TimeoutError`, `ssl.SSLError` and
# `socket.gaierror` are subclasses of `OSError`.
_SYSTEMIC: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (ssl.SSLError, "tls"),
    (ConnectionRefusedError, "connection_refused"),
    (ConnectionError, "connection_lost"),
    (aiohttp.ClientError, "unreachable"),
    (OSError, "os_error"),
)


class Failure(NamedTuple):
    """A failure, safe to log."""

    cls: FailureClass
    code: str  # constant code; never a value of an event
    blameless: bool = False  # the record did not cause the failure: the attempt does not count


class Waits(NamedTuple):
    """Retry the record after a delay."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Park:
    """Park the record's key."""

    failure: Failure
    attempts: int
    raised: str = ""  # result of `raised_at`; empty if no attempt failed


@dataclass(slots=True)
class Tries:
    """The attempts at one record."""

    attempt: int = 0  # number of attempts, without attempts in which the record was not at fault
    failures: int = 0  # number of all failed attempts
    charged: int = 0  # number of failures that count towards parking
    # `Circuit.passes` at the last failure of the record or the sink; None before the first such failure.
    passes: int | None = None
    # In the last attempt the handler was called and did not return: the failure may be the record's fault.
    calling: bool = False
    asked: bool = False  # the handler returned, and may have called its sink
    # The handler raised a `TransientError` itself; if its SQL statements raised it, the database failed instead.
    refused: bool = False

    def may_blame(self, failure: Failure) -> bool:
        """Return whether the record may have caused a failure of its last attempt."""
        return self.calling and not failure.blameless


class HandlerExitError(Exception):
    """A handler raised `SystemExit` or a similar exception, which is the cause."""


def classify(exc: BaseException) -> Failure:
    """Return the class of an exception, and a code that contains no values."""
    exc = at_fault(exc)
    if isinstance(exc, TransientError):
        return Failure("systemic" if exc.systemic else "transient", exc.code, exc.blameless)
    if isinstance(exc, BridgeError):
        return Failure(next((cls for kind, cls in _OURS if isinstance(exc, kind)), "bug"), exc.code)
    if isinstance(exc, aiohttp.ClientResponseError):
        return Failure("systemic", f"http_{exc.status:d}")
    code = next((code for kind, code in _SYSTEMIC if isinstance(exc, kind)), None)
    return Failure("bug", UNEXPECTED) if code is None else Failure("systemic", code)


def raised_at(exc: BaseException, handle: Callable[..., Any] | None) -> str:
    """Return type and origin of an exception, as `KeyError at refill_desk.consumer:31`.

    The origin is the innermost frame of the handler's own package, or the innermost frame if that package has none. The
    message of the exception is left out: it may contain values of the event.
    """
    exc = at_fault(exc)
    frames = [(str(frame.f_globals.get("__name__")), line) for frame, line in traceback.walk_tb(exc.__traceback__)]
    package = getattr(handle, "__module__", "").partition(".")[0]
    own = [(module, line) for module, line in frames if module.partition(".")[0] == package]
    kind = type(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return " at ".join([name, *(f"{module}:{line}" for module, line in (own or frames)[-1:])])


def at_fault(exc: BaseException) -> BaseException:
    """Return the exception of a handler; from a task group, return the exception most likely caused by the record."""
    if isinstance(exc, HandlerExitError):
        exc = exc.__cause__ or exc
    while isinstance(exc, BaseExceptionGroup):
        exc = max(exc.exceptions, key=lambda each: get_args(FailureClass).index(classify(each).cls))
    return exc


def delay_s(attempt: int, *, spread: Spread, first_s: float = DELAY_FIRST_S, max_s: float = DELAY_MAX_S) -> float:
    """Return a random delay after an attempt, from `first_s` up to a ceiling that doubles."""
    return backoff_s(attempt, first_s=2 * first_s, max_s=max_s, least_s=first_s, spread=spread)


def retry_delay_s(failure: Failure, tries: Tries, *, passes: int, attempts_max: int, spread: Spread) -> float | None:
    """Count a failed attempt; return the seconds until the next one, or None if the record must be parked.

    An attempt is not counted if our own statements failed, or if every record would have failed. A failure that may be
    the sink's counts against the record only if calls of other keys succeeded since its last attempt: `passes` is
    `Circuit.passes`.
    """
    if failure.cls not in {"systemic", "transient"}:
        return None
    tries.failures += 1
    own = tries.may_blame(failure)
    if not own or failure.cls == "systemic":
        tries.attempt -= 1
        # Many keys retried together must not keep an overloaded sink from recovering.
        return delay_s(tries.failures, spread=spread, max_s=DELAY_MAX_S if own else SYSTEMIC_MAX_S)
    tries.charged += passes != tries.passes
    tries.passes = passes
    return None if tries.charged >= attempts_max else delay_s(tries.failures, spread=spread)
