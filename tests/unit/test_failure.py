from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError, DecodeError, PermanentError, TransientError
from bridge.postgres.errors import NoLockError
from bridge.settling.failure import (
    ATTEMPTS_MAX,
    DELAY_FIRST_S,
    DELAY_MAX_S,
    Failure,
    OpenCircuit,
    Park,
    Retry,
    alone,
    classify,
    judge,
)


@pytest.mark.parametrize(
    ("exc", "failure"),
    [
        (TransientError("http_503", systemic=True), Failure("systemic", "http_503")),
        (TransientError("deadlock"), Failure("transient", "deadlock")),
        (NoLockError(), Failure("transient", "lock_timeout", blameless=True)),
        (TransientError("lock_timeout"), Failure("transient", "lock_timeout")),
        (TimeoutError(), Failure("transient", "handler_timeout")),
        (PermanentError("http_422"), Failure("permanent", "http_422")),
        (DecodeError("malformed"), Failure("poison", "malformed")),
        (ConfigError("Mary Smith"), Failure("bug", "config")),
        (ValueError("Mary Smith"), Failure("bug", "unexpected")),
    ],
)
def test_each_exception_has_one_class_and_a_code_without_a_value(exc: Exception, failure: Failure) -> None:
    assert classify(exc) == failure


@given(
    failure=st.builds(
        Failure, st.sampled_from(["systemic", "transient", "permanent", "poison", "bug"]), st.just("code")
    ),
    attempt=st.integers(1, 40),
    draw=st.floats(0, 1),
)
def test_verdicts(failure: Failure, attempt: int, draw: float) -> None:
    verdict = judge(failure, attempt=attempt, spread=lambda low, high: low + draw * (high - low))

    if failure.cls == "systemic":
        assert verdict == OpenCircuit(failure)
    elif failure.cls == "transient" and attempt < ATTEMPTS_MAX:
        assert isinstance(verdict, Retry)
        assert DELAY_FIRST_S <= verdict.delay_s <= DELAY_MAX_S
    else:
        assert verdict == Park(failure, attempt)


def test_a_sink_that_is_there_for_others_makes_the_failure_the_records_own() -> None:
    assert alone(Failure("systemic", "down")) == Failure("transient", "down")
