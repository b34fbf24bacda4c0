"""The judge of the fault matrix finds every kind of broken promise, and nothing where all were kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import pytest

from tests.builders import a_body
from tests.faults.ingress.ledger import Attempt, Delivery
from tests.faults.ingress.oracle import Effects, judge_effects, judge_log
from tests.faults.ingress.subject import Logged
from tests.oracle.states import expected_state

PLACE, PARKED = ("events", 0), ("unrecognized", 0)


def a_delivery(number: int, *, key: str = "rx_1", account: str = "acct_1") -> Delivery:
    name = f"evt_{number}"
    return Delivery(name, key, a_body(id=name, account_id=account, data_prescription_id=key))


def an_attempt(number: int, *, at: float | None = None, **changes: Any) -> Attempt:
    """The delivery of that number, sent at that second and accepted a half later."""
    sent_at = float(number) if at is None else at
    given: dict[str, Any] = {"answered_at": sent_at + 0.5, "status": 200, "outcome": "accepted", **changes}
    return Attempt(given.pop("delivery", a_delivery(number)), given.pop("kind", "genuine"), sent_at, **given)


def logged(*attempts: Attempt, parked: bool = False) -> list[Logged]:
    """The records of these, in this order."""
    place = PARKED if parked else PLACE
    return [
        Logged(place, offset, each.delivery.key, each.delivery.id, sha256(each.delivery.body).hexdigest(), parked, b"")
        for offset, each in enumerate(attempts)
    ]


def effects_of(log: Sequence[Logged], attempts: Sequence[Attempt], **changes: Mapping[str, Any]) -> Effects:
    """What a consumer without fault makes of one prescription."""
    bodies = {each.delivery.id: json.loads(each.delivery.body) for each in attempts}
    ids = list(dict.fromkeys(record.event_id for record in log))
    parts: dict[str, Any] = {
        "states": {"rx_1": expected_state([bodies[each] for each in ids])},
        "counts": {"rx_1": len(ids)},
        "events": {"rx_1": ids},
    }
    return Effects(**parts | changes)


def test_a_run_that_kept_its_promises_has_nothing_against_it() -> None:
    attempts = [an_attempt(1), an_attempt(2), an_attempt(3, status=202, outcome="spooled")]
    log = logged(*attempts)
    verdict = judge_log(attempts, log)
    judge_effects(verdict, attempts, log, effects_of(log, attempts))

    assert not any([verdict.lost, verdict.foreign, verdict.misordered, verdict.answers, verdict.states])
    assert (verdict.repeated, verdict.repeated_effects) == (0, 0)


@pytest.mark.parametrize("outcome", ["accepted", "duplicate", "spooled", "parked"])
def test_a_promise_without_a_record_is_lost(outcome: str) -> None:
    assert judge_log([an_attempt(1, outcome=outcome)], []).lost == ["evt_1"]


def test_a_record_of_a_changed_body_is_foreign_and_the_promise_broken() -> None:
    attempt = an_attempt(1)
    changed = an_attempt(1, delivery=a_delivery(1, account="acct_2"))
    verdict = judge_log([attempt], logged(changed))

    assert (verdict.lost, verdict.foreign) == (["evt_1"], ["evt_1"])


@pytest.mark.parametrize("kind", ["forged", "stale"])
def test_what_should_have_been_refused_is_foreign_in_the_log_and_wrong_when_it_is_answered_2xx(kind: str) -> None:
    attempt = an_attempt(1, kind=kind)
    verdict = judge_log([attempt], logged(attempt))

    assert verdict.foreign == ["evt_1"]
    assert len(verdict.answers) == 1


def test_an_event_that_was_overtaken_by_one_sent_after_its_promise_is_out_of_order() -> None:
    first, second = an_attempt(1), an_attempt(2)

    assert judge_log([first, second], logged(second, first)).misordered == ["evt_1"]


def test_the_first_sending_and_the_first_promise_count() -> None:
    """A retry that is promised later takes nothing back, and one that was sent earlier was under way at the time."""
    first, again = an_attempt(1), an_attempt(1, at=5, kind="duplicate", outcome="duplicate")
    second = an_attempt(2, status=0, outcome="")
    retried = an_attempt(2, at=3)

    assert judge_log([first, second, retried, again], logged(second, first)).misordered == ["evt_1"]


def test_a_record_without_effect_is_lost_and_an_effect_without_record_foreign() -> None:
    attempts = [an_attempt(1), an_attempt(2)]
    log = logged(*attempts)
    verdict = judge_log(attempts, log)
    judge_effects(verdict, attempts, log, effects_of(log, attempts, events={"rx_1": ["evt_1", "evt_9"]}))

    assert (verdict.lost, verdict.foreign) == (["evt_2"], ["evt_9"])


@pytest.mark.parametrize("changes", [{"counts": {"rx_1": 3}}, {"events": {"rx_1": ["evt_1", "evt_2", "evt_2"]}}])
def test_an_effect_more_than_events_is_a_duplicate(changes: Mapping[str, Any]) -> None:
    attempts = [an_attempt(1), an_attempt(2)]
    log = logged(*attempts)
    verdict = judge_log(attempts, log)
    judge_effects(verdict, attempts, log, effects_of(log, attempts, **changes))

    assert verdict.repeated_effects == 1


def test_a_prescription_in_another_state_than_the_model_says_is_wrong() -> None:
    attempts = [an_attempt(1)]
    log = logged(*attempts)
    verdict = judge_log(attempts, log)
    judge_effects(verdict, attempts, log, effects_of(log, attempts, states={"rx_1": {"display": "cancelled"}}))

    assert verdict.states == ["rx_1"]
