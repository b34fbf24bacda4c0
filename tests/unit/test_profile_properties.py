"""Whatever a document holds, it becomes a writable event that loses nothing, or a reason of a closed list."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bridge.contract.events import EVENT_MODELS
from bridge.ingress.json_body import DEPTH_MAX, Real
from bridge.ingress.profiles.profile import Mapped
from tests.profile_properties import NATIVE, assert_closed, assert_writable, holders, outcome_of

texts = st.sampled_from(
    [
        *("", "UNKNOWN", "req:1", "q:1", "30", "-1.5", "007", "2026-09-14", "2026-09-14T15:09:60", "0000-00-00"),
        *("dispensed", "\x00", "~/*"),
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
reals = st.sampled_from(["-0", "0.0", "1.5", "3.0", "1e308", "1e-300", "0e999999", "1e11", "1789398566.5355555"]).map(
    Real
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr).filter(lambda lexeme: not lexeme.isdigit()).map(Real)
    | reals
    | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, object]:
    """Draw a sample with one to four members set, taken out, added or put in another's place."""
    document: dict[str, object] = copy.deepcopy(draw(st.sampled_from([one for one in NATIVE if isinstance(one, dict)])))
    for _ in range(draw(st.integers(1, 4))):
        places = holders(document)
        assume(places)
        holder: Any = draw(st.sampled_from(places))
        place = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        action = draw(st.sampled_from(["set", "set", "take", "add", "retell"]))
        if action == "set":
            holder[place] = draw(values)
        elif action == "take":
            del holder[place]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(texts | st.sampled_from(["raw_sex", "event_id", "extensions", "patient", "sequence"]))] = draw(
                values
            )
        elif action == "retell" and isinstance(holder[place], int):
            holder[place] = str(holder[place])
    return document


@given(mutants())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_sample_is_an_event_that_can_be_written_or_a_reason(document: dict[str, object]) -> None:
    outcome = outcome_of(document)

    assert_closed(outcome)
    if isinstance(outcome, Mapped):
        (event,) = outcome.events
        assert_writable(event)


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_the_deepest_and_widest_unknowns_are_kept(event_type: str) -> None:
    deep: object = []
    for _ in range(DEPTH_MAX - 3):
        deep = {"": deep}
    samples = [one for one in NATIVE if isinstance(one, dict)]
    sample = next(
        (one for one in samples if one["type"] == event_type),
        samples[0] | {"type": event_type, "data": {"prescription_id": "rx_1"}},
    )
    data: Any = sample["data"]
    outcome = outcome_of({**sample, "data": {**data, "deep": deep}, **{f"x{n}": n for n in range(5_000)}})

    assert isinstance(outcome, Mapped)
    assert outcome.extensions == 5_001
