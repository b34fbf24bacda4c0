"""docs/contract.md §6 by sentences: the order of facts, contradictions, and the final states of samples."""

from itertools import permutations
from typing import Any

import pytest

from consumers.lifecycle.facts import blank, stamp_of
from consumers.lifecycle.roll_up import roll_up
from consumers.read_model.summary import note_summary
from tests.prescriptions import SCENARIOS, cancel_asked, created, filled, scenario, sent, state_of

MINUTE = "2026-09-14T15:0"
# Columns of the roll-up by the short names of the scenarios' expectations.
_COLUMNS = {"order": "order_status"}


def test_equal_ids_of_two_sources_are_two_facts_in_every_order() -> None:
    """Ids are unique within a source; without the name the one that came first would win."""
    facts = [filled(1, "dispensed", id="a", source="x"), filled(1, "not_dispensed", id="a", source="y")]

    assert [state_of(*order).dispense for order in permutations(facts)] == ["not_dispensed"] * 2


def test_a_clock_that_runs_ahead_counts_as_receipt_plus_five_minutes() -> None:
    ahead = filled(600, "dispensed", received_at=filled(0, "").occurred_at)

    assert state_of(ahead, filled(6, "not_dispensed")).dispense == "not_dispensed"
    assert state_of(ahead).dispensed_at == "2026-09-14T15:05:00.000000Z"


def test_a_prescription_is_a_stub_until_its_draft_or_its_sending_arrives() -> None:
    assert state_of(filled(1, "dispensed")).stub
    assert not state_of(filled(1, "dispensed"), created(0)).stub
    assert not state_of(filled(1, "dispensed"), sent(0)).stub


def test_nothing_known_is_an_active_draft() -> None:
    state = roll_up(blank())

    assert (state.transmission, state.order_status, state.display, state.stub) == ("draft", "active", "draft", True)


def test_a_state_has_the_time_since_when_it_is_so() -> None:
    state = state_of(sent(1), cancel_asked(2, request_id="c", scope="all"))

    assert (state.transmission_at, state.cancel_pending_since) == (f"{MINUTE}1:00.000000Z", f"{MINUTE}2:00.000000Z")


def test_a_summary_has_parts_of_the_newest_event_with_each() -> None:
    ada = {"id": "1", "first_name": "Ada", "last_name": "Lovelace"}
    parts: dict[str, Any] = {
        "patient": {"id": "1", "mrn": "m", "name": "Ada Lovelace", "birth_date": None},
        "prescriber": {"id": "1", "npi": "n", "name": "Ada Lovelace"},
        "pharmacy": {"ncpdp_id": "7", "name": "Corner"},
        "medication": {"description": "d", "ndc": "c", "dea_schedule": "CII"},
    }
    document = blank()
    for at, known in ((2, parts), (1, {part: {"name": "older"} for part in parts}), (3, {})):
        fields: dict[str, Any] = {name: ada | part for name, part in known.items()}
        note_summary(document, event := created(at, **fields), stamp_of(event))

    assert document.pop("last")[1:] == ["prescription.created", "acct_4021", "sandbox"]
    assert {name: document[name][1] for name in parts} == parts


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_expects(name: str) -> None:
    events, expected = scenario(name)
    state = state_of(*events)

    assert {word: getattr(state, _COLUMNS.get(word, word)) for word in expected} == expected
