"""docs/contract.md §6 by sentences: which fact comes first, what contradicts, and where the sample lives end."""

from __future__ import annotations

from itertools import permutations

import pytest

from bridge.event import Event
from consumers.lifecycle.facts import blank
from consumers.lifecycle.roll_up import roll_up
from consumers.lifecycle.safety import anomalies
from tests.prescriptions import (
    SCENARIOS,
    cancel_asked,
    change_answered,
    change_asked,
    created,
    document_of,
    failed,
    filled,
    processed,
    renewal_answered,
    renewal_asked,
    scenario,
    sent,
    state_of,
)

# Columns of the roll-up by the short names of the scenarios' expectations.
_COLUMNS = {"order": "order_status"}


def test_the_time_decides_before_the_sequence() -> None:
    assert (
        state_of(filled(1, "dispensed", sequence=9), filled(2, "not_dispensed", sequence=1)).dispense == "not_dispensed"
    )


def test_at_the_same_time_the_sequence_decides_and_none_is_zero() -> None:
    facts = [filled(1, "dispensed", sequence=1, id="a"), filled(1, "not_dispensed", sequence=None, id="b")]

    assert state_of(*facts).dispense == "dispensed"


def test_at_the_same_time_and_sequence_the_id_decides() -> None:
    assert state_of(filled(1, "dispensed", id="b"), filled(1, "not_dispensed", id="a")).dispense == "dispensed"


def test_equal_ids_of_two_sources_are_two_facts_in_every_order() -> None:
    """Ids are unique within a source; without the name the one that came first would win."""
    facts = [filled(1, "dispensed", id="a", source="x"), filled(1, "not_dispensed", id="a", source="y")]

    assert [state_of(*order).dispense for order in permutations(facts)] == ["not_dispensed"] * 2


def test_a_clock_that_runs_ahead_counts_as_receipt_plus_five_minutes() -> None:
    ahead = filled(600, "dispensed", received_at=filled(0, "").occurred_at)
    facts = [ahead, filled(6, "not_dispensed")]

    assert state_of(*facts).dispense == "not_dispensed"
    assert state_of(ahead).dispensed_at == "2026-09-14T15:05:00.000000Z"


def test_a_confirmation_after_a_final_failure_is_an_anomaly_of_its_message() -> None:
    facts = [failed(0, relates_to_message_id="m1", retryable=False), processed(1, relates_to_message_id="m1")]

    assert state_of(*facts).anomalies == 1
    assert anomalies(document_of(facts)) == {"processed_after_final_failure": ["m1"]}


@pytest.mark.parametrize(
    "facts",
    [
        [failed(0, relates_to_message_id="m1", retryable=True), processed(1, relates_to_message_id="m1")],
        [processed(0, relates_to_message_id="m1"), failed(1, relates_to_message_id="m1", retryable=False)],
        [failed(0, relates_to_message_id="m1", retryable=False), processed(1, relates_to_message_id="m3")],
        [failed(0, relates_to_message_id="m1", retryable=False)],
    ],
    ids=["not final", "before", "another message", "never processed"],
)
def test_what_is_no_confirmation_after_a_final_failure_is_no_anomaly(facts: list[Event]) -> None:
    assert state_of(*facts).anomalies == 0


def test_a_prescription_is_a_stub_until_its_draft_or_its_sending_arrives() -> None:
    assert state_of(filled(1, "dispensed")).stub
    assert not state_of(filled(1, "dispensed"), created(0)).stub
    assert not state_of(filled(1, "dispensed"), sent(0)).stub


def test_a_replacement_is_named_by_the_newest_answer_that_stands() -> None:
    facts = [
        renewal_answered(0, request_id="r1", decision="replace", replacement_prescription_id="rx_2"),
        change_answered(1, request_id="x1", decision="approved", replacement_prescription_id="rx_3"),
    ]

    assert state_of(*facts).replaced_by == "rx_3"


def test_the_times_are_those_of_the_facts_that_decide() -> None:
    state = state_of(
        sent(1, message_id="m1"),
        cancel_asked(3, request_id="c1"),
        cancel_asked(2, request_id="c2"),
        renewal_asked(5, request_id="r1"),
        change_asked(4, request_id="x1"),
    )

    assert (state.transmission_at, state.cancel_pending_since, state.open_since) == (
        "2026-09-14T15:01:00.000000Z",
        "2026-09-14T15:02:00.000000Z",
        "2026-09-14T15:04:00.000000Z",
    )


def test_nothing_known_is_an_active_draft() -> None:
    state = roll_up(blank())

    assert (state.transmission, state.order_status, state.display, state.stub) == ("draft", "active", "draft", True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_expects(name: str) -> None:
    events, expected = scenario(name)
    state = state_of(*events)

    assert {word: getattr(state, _COLUMNS.get(word, word)) for word in expected} == expected
