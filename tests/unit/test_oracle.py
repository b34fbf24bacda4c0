"""The oracle knows no order of arrival, and its histories reach every state that docs/contract.md §6 names."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import pytest

from tests.builders import SAMPLES
from tests.oracle import states as oracle
from tests.oracle.histories import History, history
from tests.oracle.states import cancels, expected_state, facts_of, fills, lines, messages, parcels, requests

SCENARIOS = sorted(path.stem for path in (SAMPLES / "scenarios").glob("*.ndjson"))
SEEDS = range(600)
ENOUGH = 3


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_ends_as_it_says(scenario: str) -> None:
    folder = SAMPLES / "scenarios"
    told = [json.loads(text) for text in (folder / f"{scenario}.ndjson").read_text().splitlines()]
    end = json.loads((folder / f"{scenario}.expect.json").read_text())["expect"]

    state = expected_state(told)

    assert {name: state[name] for name in end} == end


@cache
def written() -> tuple[History, ...]:
    return tuple(map(history, SEEDS))


def reached(each: History) -> Iterator[tuple[str, object]]:
    facts = facts_of(each.bodies)
    machines: Mapping[str, Iterable[object]] = {
        "message": messages(facts).values(),
        "cancel": cancels(facts).values(),
        "fill": fills(facts).values(),
        "line": lines(facts).values(),
        "parcel": parcels(facts).values(),
        "request": requests(facts).values(),
    }
    for name, states in machines.items():
        yield from ((name, state) for state in set(states))
    columns = expected_state(each.bodies)
    for column in ("transmission", "order", "dispense", "fulfillment", "shipment", "display", "anomalies"):
        yield column, columns[column]
    yield from (("safety", signal) for signal in columns["safety"])
    yield "open_requests", min(len(columns["open_requests"]), 2)


TRANSMISSION = ("sent", "processed", "failed", "draft")
ORDER = ("active", "cancelled", "replaced", "cancel_pending", "rejected")
GIVEN = ("dispensed", "partially_dispensed", "transferred", "not_dispensed")
STATES: dict[str, tuple[object, ...]] = {
    "message": TRANSMISSION[:3],
    "cancel": ("asked", *oracle.CANCEL_DECISIONS),
    "fill": oracle.FILL_WORDS,
    "line": oracle.LINE_WORDS,
    "parcel": oracle.PARCEL_WORDS,
    "request": tuple({"open", *oracle.RENEWAL_DECISIONS, *oracle.CHANGE_DECISIONS, *oracle.CLOSE_REASONS}),
    "transmission": TRANSMISSION,
    "order": ORDER,
    "dispense": (*GIVEN, "none"),
    "fulfillment": (*oracle.LINE_WORDS, "none"),
    "shipment": (*oracle.PARCEL_WORDS, "none"),
    "display": tuple({*ORDER[1:], *GIVEN, *oracle.PARCEL_WORDS, *oracle.LINE_WORDS, *TRANSMISSION}),
    "safety": ("dispensed_after_cancel",),
    "anomalies": (0, 1),
    "open_requests": (0, 1, 2),
}


def test_the_histories_reach_every_state_of_every_machine() -> None:
    counts = Counter(itertools.chain.from_iterable(map(reached, written())))

    few = [(name, state) for name, states in STATES.items() for state in states if counts[name, state] < ENOUGH]
    assert few == []
