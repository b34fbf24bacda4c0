"""Scenes of the appender: effects that are not idempotent, and one prescription that is refused until `healed`."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal
from uuid import uuid4

from tests.faults.appender import NAME, TABLES
from tests.faults.scene import PARTITIONS, Ground, Scene, Subject, scene_of
from tests.faults.sink import Sink
from tests.installed import install
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives

Mode = Literal["batches", "lanes"]
Calling = Literal["batches", "lanes", "outside"]
"""Also without the settling transaction, for a handler that calls a service."""
# The prescription whose events the handler refuses until it is healed.
REFUSED = 3
_APPENDED = "select prescription_id, array_agg(event_id order by number) from appended group by 1"


@contextmanager
def appending(
    ground: Ground,
    mode: Calling,
    lives: Lives,
    *,
    partitions: int = PARTITIONS,
    pause_s: float = 0.0,
    sink: Sink | None = None,
) -> Iterator[Scene]:
    """Yield a scene whose handler pauses for `pause_s` at each event.

    It first posts each event to the `sink`, if there is one; for `outside` that is the effect.
    """
    group = f"{mode}-{uuid4().hex[:12]}"
    topic = f"faults.{group}"
    options = {
        "TOPIC": topic,
        "GROUP": group,
        "MODE": mode,
        "PAUSE_S": str(pause_s),
        "REFUSED": lives.prescription_id(REFUSED),
        **({} if sink is None else {"SINK": sink.url}),
    }
    subject = Subject(
        NAME,
        group,
        topic,
        options,
        partial(check_sink, sink) if mode == "outside" and sink is not None else check,
        unpaused={"PAUSE_S": "0"},
        environment=install(ground.directory / group / "package", {NAME: "tests.faults.appender:appender"}),
        tables=TABLES,
    )
    with scene_of(ground, subject, lives, partitions=partitions) as scene:
        yield scene


def ask_release(scene: Scene) -> None:
    """Heal the refused key, and request the release of every parked key as the operator's command does."""
    execute(
        scene.dsn,
        "insert into healed default values",
        "update drx_consumer.parked_key set release_requested_at = now(), release_requested_by = 'test'",
    )


def check(scene: Scene) -> None:
    """Check that each event had its effect once, in order per prescription, also of the refused one."""
    lives = scene.lives
    assert {key for (key,) in scene.ask("select key from drx_consumer.parked_key")} <= {lives.prescription_id(REFUSED)}
    ask_release(scene)
    until(lambda: scene.parked() == 0, what=f"the release of what {scene.group} has parked")
    assert dict(scene.ask(_APPENDED)) == lives.ids()
    assert scene.written == lives.count


def check_sink(sink: Sink, scene: Scene) -> None:
    assert (scene.parked(), sink.told_of(scene.group)) == (0, scene.lives.ids())
