"""Scenes of the read model: every prescription is what the oracle says, and every event is there once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from bridge.dev.oracle import COLUMNS, expected_state
from tests.faults.scene import PARTITIONS, SESSION_S, Ground, Scene, Subject, scene_of
from tests.topic_filler import Lives

NAME = "read_model"


@contextmanager
def reading(
    ground: Ground, lives: Lives, *, partitions: int = PARTITIONS, session_s: str = SESSION_S
) -> Iterator[Scene]:
    """Set a scene."""
    schema = f"rm_{uuid4().hex[:12]}"
    topic = f"faults.{schema}"
    subject = Subject(
        NAME,
        f"{NAME}.{schema}",
        {"KAFKA__SESSION_S": session_s, "READ_MODEL__SCHEMA": schema, "READ_MODEL__TOPICS": topic},
        {},
        (),
        lambda scene: check(scene, schema),
    )
    with scene_of(ground, subject, topic=topic, lives=lives, partitions=partitions) as scene:
        yield scene


def check(scene: Scene, schema: str) -> None:
    """Compare all columns that hold the state, when the prescription began and changed, and its events."""
    lives = scene.lives
    assert scene.parked() == 0
    columns = ", ".join(COLUMNS.values())
    rows = scene.ask(
        f"select prescription_id, first_event_at, last_event_at, events, {columns} from {schema}.prescription"  # noqa: S608 - ours
    )
    found = {row[0]: row[1:] for row in rows}
    wrong = []
    for number in range(lives.prescriptions):
        events = lives.events(number)
        state = expected_state(event.value for event in events)
        times = [event.ordering_time for event in events]
        row = (min(times), max(times), len(events), *(state[name] for name in COLUMNS))
        if found.get(lives.prescription_id(number)) != row:
            wrong.append(lives.prescription_id(number))
    assert wrong == []
    assert len(found) == lives.prescriptions
    counts = scene.ask(f"select count(*), count(distinct event_id) from {schema}.event")  # noqa: S608 - ours
    assert counts == [(lives.count, lives.count)]
