"""For any order and repetition of events: the same document, byte for byte, and the oracle's state."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import orjson
import pytest

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event
from consumers.lifecycle.facts import Document, blank
from consumers.lifecycle.machines import UNKNOWN, apply
from consumers.lifecycle.roll_up import roll_up
from consumers.read_model.summary import note_summary
from tests.oracle.states import COLUMNS, expected_state
from tests.prescriptions import START, a_fact

SEEDS, SEEDS_AT_ONCE = 4_000, 1_000
# Types whose facts meet in one machine or one contradiction, and some that move none.
MACHINES: Sequence[Sequence[str]] = (
    ("prescription.sent", "prescription.processed", "prescription.transmission_failed"),
    ("renewal.requested", "renewal.responded", "renewal.closed", "change.requested", "change.responded"),
    ("cancel.requested", "cancel.responded", "fill.status_changed"),
    ("fulfillment.status_changed",),
    ("shipment.status_changed",),
    ("prescription.created", "epcs.signed", "alert.raised", "other.reported"),
)
# What machines read, beside the words below. Ids are in the order of code points, and a missing one may be empty.
IDS = ("a", "B", "é")
SAID: dict[str, Sequence[Any]] = {
    "message_id": (None, "", *IDS),
    "relates_to_message_id": (None, "", *IDS),
    "replacement_prescription_id": (None, None, "", "rx_2"),
    "request_id": IDS,
    "queue_id": IDS,
    "tracking_number": IDS,
    "prescriber_order_number": (None, *IDS),
    "retryable": (True, False),
    "active": (None, True, False),
    "fill_number": (0, 1, 2),
    "fill_id": (None, None, "", "1", *IDS),
    "sequence": (None, 1, 2, 3),
}
WORDS = ("decision", "reason", "fill_status", "fulfillment_status", "shipment_status")


class Pen:
    """Writes independent facts; in some histories with few values, so that they may agree."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._few = rng.choice((1, 2, 9))
        self._chosen: dict[tuple[str, ...], list[str]] = {}

    def history(self) -> list[Event]:
        machines = self._rng.choices(MACHINES, k=self._rng.choice((1, 1, 2, 3, 6)))
        kinds = [self._rng.choice(types) for types in machines for _ in range(self._rng.choice((1, 2, 3, 5, 9)))]
        return [self._fact(kind, f"evt_{number}") for number, kind in enumerate(kinds)]

    def _fact(self, kind: str, identity: str) -> Event:
        rng, model = self._rng, EVENT_MODELS[kind].model_fields
        fields = {name: rng.choice(said) for name, said in SAID.items() if name in model}
        for name in WORDS:
            if name in model and kind.partition(".")[2] != "requested":
                fields[name] = self._word(get_args(model[name].annotation))
        # Moments collide often, and some are so far ahead of their receipt that they are clamped.
        received_at = START + timedelta(minutes=rng.randint(0, 6))
        source = rng.choice(("drx", "other"))
        return a_fact(kind, rng.randint(0, 6), id=identity, source=source, received_at=received_at, **fields)

    def _word(self, words: tuple[str, ...]) -> str:
        if self._rng.random() < 0.2:
            return UNKNOWN
        few = self._chosen.setdefault(words, self._rng.sample(words, min(self._few, len(words))))
        return self._rng.choice(few)


def merged(events: Sequence[Event]) -> Document:
    """Merge, with the document stored and read again on the way."""
    document = blank()
    for number, event in enumerate(events):
        if number == len(events) // 2:
            document = orjson.loads(orjson.dumps(document))
        apply(document, event, note=note_summary)
    return document


def stored(document: Document) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
def test_any_arrival_ends_where_the_oracle_does(first: int) -> None:
    for seed in range(first, first + SEEDS_AT_ONCE):
        rng = random.Random(seed)  # noqa: S311 - histories and orders of arrival, not keys
        events = Pen(rng).history()
        arrived = [*events, *rng.choices(events, k=len(events))]
        rng.shuffle(arrived)
        document = merged(arrived)

        state = roll_up(document)
        assert stored(document) == stored(merged(events)), seed
        expected = expected_state([event.value for event in events])
        assert {name: getattr(state, column) for name, column in COLUMNS.items()} == expected, seed
