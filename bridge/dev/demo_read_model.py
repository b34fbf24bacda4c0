"""The tour goes on behind Kafka: what the read model has made of the life that was played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.dev.demo import Lived
from bridge.dev.demo_acts import DISPLAY, MACHINES
from bridge.dev.demo_faults import history_faults, state_faults
from bridge.dev.demo_model import Row, Told
from bridge.dev.demo_screen import Screen


class Model(Protocol):
    """Reads the tables of the read model; `PostgresWitness` does."""

    async def row(self, key: str, *, events: int) -> Row | None:
        """Return the row of a prescription, waiting a while until it has so many events."""

    async def history(self, key: str) -> list[Told]:
        """Return what was told of a prescription in the order of facts."""


async def tour_timeline(lived: Lived, *, screen: Screen, model: Model) -> None:
    """Show what the read model made of each event, and the row in the end."""
    key, acts = lived.key, len(lived.events)
    screen.chapter(
        "4  The same life in PostgreSQL",
        "A consumer has kept up all along: each event, the word to display after it, and what it moved.",
    )
    history = await model.history(key)
    screen.table(timeline(history, lived.rows))
    screen.check(
        "the history has every event once, whole, in order, and where in Kafka it lies",
        history_faults([str(event["id"]) for event in lived.events], lived.records, history),
    )
    faults = [
        f"after event {number}: {fault}"
        for number, row in enumerate(lived.rows, start=1)
        for fault in state_faults(row, number)
    ]
    screen.check(f"after each of the {acts} events, all six machines and the word were what the story means", faults)
    row = await model.row(key, events=acts)
    screen.note("")
    screen.note("Its row as it is now:")
    screen.pairs({} if row is None else row.state)
    screen.check("the row is what the story ends with; the forged cancel has left no trace", state_faults(row, acts))


def timeline(history: Sequence[Told], rows: Sequence[Row | None]) -> list[tuple[str, str, str, str]]:
    """Write each event with the word displayed after it and the machines that it moved."""
    lines, before = [], dict.fromkeys(MACHINES, "none")
    for told, row in zip(history, rows, strict=False):
        state = before if row is None else dict(row.state)
        moved = ", ".join(f"{name} {state[name]}" for name in MACHINES if state[name] != before[name])
        lines.append((f"{told.occurred_at:%b %d %H:%M}", told.event_type, state.get(DISPLAY, ""), moved))
        before = state
    return lines
