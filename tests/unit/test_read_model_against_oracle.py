"""The read model's merging ends where the oracle does, whatever the order, the repetitions and the batches."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import pytest

from bridge.event import Event
from bridge.ingress.profiles.profile import Mapped
from consumers.lifecycle.facts import blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.roll_up import roll_up
from consumers.read_model.summary import note_summary
from tests.oracle.histories import History, arrivals, history
from tests.oracle.pen import Body
from tests.oracle.states import COLUMNS, expected_state
from tests.unit.profile_documents import map_body

SEEDS_AT_ONCE = 100
ARRIVALS = 3


def event_of(body: Body) -> Event:
    outcome = map_body(orjson.dumps(body))
    assert isinstance(outcome, Mapped)
    (event,) = outcome.events
    return event


def events_of(told: History) -> dict[str, Event]:
    return {body["id"]: event_of(body) for body in told.bodies}


def merged(batches: Iterable[Sequence[Body]], events: Mapping[str, Event]) -> bytes:
    """Give the document after all batches; between two of them it is stored and read again."""
    stored = orjson.dumps(blank())
    for batch in batches:
        document = orjson.loads(stored)
        for body in batch:
            apply(document, events[body["id"]], note=note_summary)
        stored = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return stored


def columns_of(stored: bytes) -> dict[str, Any]:
    state = roll_up(orjson.loads(stored))
    return {name: getattr(state, column) for name, column in COLUMNS.items()}


@pytest.mark.parametrize("first", range(0, 800, SEEDS_AT_ONCE))
def test_any_arrival_ends_where_the_oracle_does(first: int) -> None:
    for seed in range(first, first + SEEDS_AT_ONCE):
        told, rng = history(seed), random.Random(seed)  # noqa: S311 - an order of arrival, not keys
        events = events_of(told)
        ends = {merged(arrivals(rng, told.bodies), events) for _ in range(ARRIVALS)}

        assert len(ends) == 1, seed
        assert columns_of(ends.pop()) == expected_state(told.bodies), seed
