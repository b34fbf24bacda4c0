"""Scenes of the read model: every prescription must match the oracle, and every event must exist once."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from tests.faults.pausing_read_model import NAME
from tests.faults.scene import PARTITIONS, Ground, Scene, Subject, scene_of
from tests.installed import install
from tests.oracle.states import COLUMNS, expected_state
from tests.topic_filler import Lives


@contextmanager
def reading(ground: Ground, lives: Lives, *, partitions: int = PARTITIONS, pause_s: float = 0.0) -> Iterator[Scene]:
    schema = f"rm_{uuid4().hex[:12]}"
    topic, group = f"faults.{schema}", f"read_model.{schema}"
    options = {"SCHEMA": schema, "TOPICS": topic, "PAUSE_S": str(pause_s)}
    package = install(ground.directory / group / "package", {NAME: f"tests.faults.{NAME}:{NAME}"})
    subject = Subject(NAME, group, topic, options, partial(check, schema), {"PAUSE_S": "0"}, package)
    with scene_of(ground, subject, lives, partitions=partitions) as scene:
        yield scene


def check(schema: str, scene: Scene) -> None:
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
    assert (wrong, len(found)) == ([], lives.prescriptions)
    counts = scene.ask(f"select count(*), count(distinct event_id) from {schema}.event")  # noqa: S608 - ours
    assert counts == [(lives.count, lives.count)]
