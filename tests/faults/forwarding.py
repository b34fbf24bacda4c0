"""Scenes of `forward`: its endpoint gets every event, in order per prescription, and repeats with equal bytes."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from uuid import uuid4

from bridge.contract.native import native_json
from tests.faults.scene import PARTITIONS, SESSION_S, Ground, Scene, Subject, scene_of
from tests.faults.sink import Sink
from tests.topic_filler import Lives

NAME = "forward"
LANES = 8
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@contextmanager
def forwarding(
    ground: Ground,
    lives: Lives,
    *,
    partitions: int = PARTITIONS,
    session_s: str = SESSION_S,
    pause_s: float = 0.0,
    sink: Sink | None = None,
) -> Iterator[Scene]:
    """Set a scene; the `sink`, its own one unless given, takes `pause_s` to answer."""
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
        subject = Subject(
            NAME,
            group,
            {"KAFKA__SESSION_S": session_s, **{f"{NAME.upper()}__{name}": value for name, value in options.items()}},
            {},
            (),
            partial(check, desk),
            {f"{NAME.upper()}__URL": desk.endpoint(group)},
        )
        scene = scene_of(ground, subject, topic=options["TOPICS"], lives=lives, partitions=partitions)
        yield stack.enter_context(scene)


def check(desk: Sink, scene: Scene) -> None:
    """The endpoint got each event with the body that it is mapped from, and nothing is parked."""
    lives = scene.lives
    assert scene.parked() == 0
    assert desk.told_of(scene.group) == {
        lives.prescription_id(number): lives.event_ids(number) for number in range(lives.prescriptions)
    }
    sent = desk.posted[scene.group]
    wrong = [
        event.id
        for number in range(lives.prescriptions)
        for event in lives.events(number)
        if sent[event.id] != {native_json(event.value)}
    ]
    assert wrong == []
    assert len(sent) == lives.count
