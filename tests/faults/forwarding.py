"""Scenes of `forward`: its endpoint must get every event, in order per prescription, and repeats with equal bytes."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from uuid import uuid4

from bridge.contract.native import native_json
from tests.faults.scene import PARTITIONS, Ground, Scene, Subject, scene_of
from tests.faults.sink import Sink
from tests.topic_filler import Lives

NAME = "forward"
LANES = 8
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@contextmanager
def forwarding(
    ground: Ground, lives: Lives, *, partitions: int = PARTITIONS, pause_s: float = 0.0, sink: Sink | None = None
) -> Iterator[Scene]:
    """Set a scene; the `sink`, by default a new one, responds after `pause_s`."""
    instance = f"desk-{uuid4().hex[:12]}"
    group = f"{NAME}.{instance}"
    secrets = ground.directory / group / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "current").write_text(SECRET)
    with ExitStack() as stack:
        desk = stack.enter_context(Sink(lives.seed)) if sink is None else sink
        options = {
            "URL": desk.endpoint(group, pause_s=pause_s),
            "ALLOW_HTTP": "true",
            "SECRETS_DIR": str(secrets),
            "TOPICS": f"faults.{group}",
            "INSTANCE": instance,
            "LANES": str(LANES),
        }
        unpaused = {"URL": desk.endpoint(group)}
        subject = Subject(NAME, group, options["TOPICS"], options, partial(check, desk), unpaused)
        yield stack.enter_context(scene_of(ground, subject, lives, partitions=partitions))


def check(desk: Sink, scene: Scene) -> None:
    lives = scene.lives
    assert (scene.parked(), desk.told_of(scene.group)) == (0, lives.ids())
    sent = desk.posted[scene.group]
    wrong = [
        event.id
        for number in range(lives.prescriptions)
        for event in lives.events(number)
        if sent[event.id] != {native_json(event.value)}
    ]
    assert (wrong, len(sent)) == ([], lives.count)
