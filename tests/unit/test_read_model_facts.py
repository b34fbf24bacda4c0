"""docs/contract.md §6 by sentences: the order of facts, contradictions, and the final states of samples."""

from itertools import permutations

import pytest

from consumers.lifecycle.facts import blank
from consumers.lifecycle.roll_up import roll_up
from tests.prescriptions import SCENARIOS, created, filled, scenario, sent, state_of

# Columns of the roll-up by the short names of the scenarios' expectations.
_COLUMNS = {"order": "order_status"}


def test_equal_ids_of_two_sources_are_two_facts_in_every_order() -> None:
    """Ids are unique within a source; without the name the one that came first would win."""
    facts = [filled(1, "dispensed", id="a", source="x"), filled(1, "not_dispensed", id="a", source="y")]

    assert [state_of(*order).dispense for order in permutations(facts)] == ["not_dispensed"] * 2


def test_a_clock_that_runs_ahead_counts_as_receipt_plus_five_minutes() -> None:
    ahead = filled(600, "dispensed", received_at=filled(0, "").occurred_at)
    facts = [ahead, filled(6, "not_dispensed")]

    assert state_of(*facts).dispense == "not_dispensed"
    assert state_of(ahead).dispensed_at == "2026-09-14T15:05:00.000000Z"


def test_a_prescription_is_a_stub_until_its_draft_or_its_sending_arrives() -> None:
    assert state_of(filled(1, "dispensed")).stub
    assert not state_of(filled(1, "dispensed"), created(0)).stub
    assert not state_of(filled(1, "dispensed"), sent(0)).stub


def test_nothing_known_is_an_active_draft() -> None:
    state = roll_up(blank())

    assert (state.transmission, state.order_status, state.display, state.stub) == ("draft", "active", "draft", True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_expects(name: str) -> None:
    events, expected = scenario(name)
    state = state_of(*events)

    assert {word: getattr(state, _COLUMNS.get(word, word)) for word in expected} == expected
