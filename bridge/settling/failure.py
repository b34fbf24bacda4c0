"""The one place that decides what becomes of a record that could not be applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bridge.errors import BridgeError, DecodeError, PermanentError, TransientError

FailureClass = Literal["systemic", "transient", "permanent", "poison", "bug"]

# Record-transient failures are tried five times, with full jitter between 0.2 and 30 s.
ATTEMPTS_MAX = 5
DELAY_FIRST_S = 0.2
DELAY_MAX_S = 30.0

TIMEOUT = "handler_timeout"
UNEXPECTED = "unexpected"
ID_CONFLICT = "id_conflict"
PROCESS_DIED = "process_died"

Spread = Callable[[float, float], float]
"""A number between two, such as `random.uniform`."""


class Failure(NamedTuple):
    """What went wrong, in words that may be logged.

    Attributes:
        code: Constant of the error's class; never a value of an event.
        blameless: It says nothing of the record, and uses up no attempt of it.
    """

    cls: FailureClass
    code: str
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the record again, alone, after a delay; what follows of its key waits."""

    failure: Failure
    delay_s: float


@dataclass(frozen=True, slots=True)
class Park:
    """Set the record aside: its key is parked, or a copy goes to the dead-letter topic of an order-free handler."""

    failure: Failure
    attempts: int


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """No other record would fare better: leave everything as it is until the sink answers."""

    failure: Failure


Verdict = Retry | Park | OpenCircuit

CONFLICT = Failure("permanent", ID_CONFLICT)
DIED = Failure("bug", PROCESS_DIED)
"""A process died each time it had this record in hand."""


def classify(exc: BaseException) -> Failure:
    """Return the class of an exception, and a code that holds no value."""
    if isinstance(exc, TransientError):
        return Failure("systemic" if exc.systemic else "transient", exc.code, exc.blameless)
    if isinstance(exc, PermanentError):
        return Failure("permanent", exc.code)
    if isinstance(exc, DecodeError):
        return Failure("poison", exc.code)
    if isinstance(exc, TimeoutError):
        return Failure("transient", TIMEOUT)
    if isinstance(exc, BridgeError):
        return Failure("bug", exc.code)
    return Failure("bug", UNEXPECTED)


def judge(failure: Failure, *, attempt: int, spread: Spread) -> Verdict:
    """Say what becomes of a record whose `attempt` (1 for the first) ended in `failure`."""
    if failure.cls == "systemic":
        return OpenCircuit(failure)
    if failure.cls == "transient" and attempt < ATTEMPTS_MAX:
        return Retry(failure, delay_s(attempt, spread=spread))
    return Park(failure, attempt)


def alone(failure: Failure) -> Failure:
    """Return a systemic failure as the record's own: it fails where others pass."""
    return Failure("transient", failure.code)


def delay_s(attempt: int, *, spread: Spread, first_s: float = DELAY_FIRST_S, max_s: float = DELAY_MAX_S) -> float:
    """Draw the delay after an attempt: anywhere up to a ceiling that doubles, so that retries never come in step."""
    ceiling = min(max_s, first_s * 2.0 ** min(attempt, 16))
    return spread(first_s, max(first_s, ceiling))
