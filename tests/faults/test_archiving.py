"""`archive` killed at its named points, frozen, rebalanced, or without its disk: each event is in the lake once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge.runtime.failpoints import AFTER_EFFECT, AFTER_PUBLISH, AFTER_STAGE, BEFORE_FENCE, BEFORE_STAGE
from tests.faults.archiving import archiving
from tests.faults.scene import Ground, Scene
from tests.faults.test_zombies import MAX_POLL_S, has_left, is_frozen
from tests.integration.service_process import until
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 240
# Before and after a file is staged; after it is noted, and after files are published, before that is committed.
POINTS = (BEFORE_STAGE, AFTER_STAGE, AFTER_EFFECT, AFTER_PUBLISH)
# Which visit of a point is the last, so that a process gets on before it dies. Each of the four partitions brings one.
VISITS = {BEFORE_STAGE: 2, AFTER_STAGE: 3, AFTER_EFFECT: 3, AFTER_PUBLISH: 1}
EACH = 200


class Case(NamedTuple):
    """How often a process dies, each time at another point, or what else happens.

    Attributes:
        kills: Deaths, at the points in turn.
        first: The point of the first one.
        members: Processes that share the partitions while others come and go.
        frozen: The point at which one is frozen until the group has gone on without it.
        away_s: Seconds that the directory takes no file, after the circuit has opened.
    """

    kills: int = 0
    first: int = 0
    members: int = 1
    frozen: str = ""
    away_s: float = 0.0


CASES = [
    # The four points; two by two, as they are played at the same time.
    Case(kills=2),
    Case(kills=2, first=2),
    Case(members=3),
    Case(frozen=BEFORE_FENCE),
    Case(away_s=1.0),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        # PostgreSQL ends the transaction of a frozen member after two minutes.
        for each in (Case(kills=50), Case(frozen=AFTER_STAGE), Case(away_s=300.0))
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Do it, and compare the lake with the log."""
    lives = Lives.of_records(RECORDS + EACH * case.kills, seed=seed)
    with archiving(ground, lives, partitions=1 if case.frozen else 4) as (scene, lake):
        for number in range(case.kills):
            kill(scene, POINTS[(case.first + number) % len(POINTS)])
        if case.frozen:
            freeze(scene, case.frozen)
        else:
            scene.member()
        if case.members > 1:
            come_and_go(scene, case.members)
        if case.away_s:
            be_away(scene, lake, case.away_s)
        scene.finish()


def kill(scene: Scene, point: str) -> None:
    """Have a process die there."""
    dying = scene.member(f"{point}:kill@{VISITS[point]}")
    scene.write(EACH)
    assert dying.ended() == -signal.SIGKILL, dying.output()


def come_and_go(scene: Scene, members: int) -> None:
    """Have members join one by one, and leave or die one by one, amid the writing."""
    scene.write(RECORDS // 4)
    for _ in range(members - 1):
        scene.member()
        scene.write(RECORDS // 10)
    scene.wait_settled(RECORDS // 4)
    scene.members[0].kill()
    scene.write(RECORDS // 10)
    scene.wait_settled()


def freeze(scene: Scene, point: str) -> None:
    """Freeze a member with a batch in hand until another has settled it."""
    zombie = scene.member(f"{point}:stop@2", KAFKA__MAX_POLL_S=MAX_POLL_S)
    scene.write(RECORDS // 2)
    until(lambda: is_frozen(zombie), what="a frozen member")
    scene.member()
    scene.wait_settled()
    zombie.thaw()
    until(lambda: has_left(zombie), what="a member that knows that it was away")


def be_away(scene: Scene, lake: Path, away_s: float) -> None:
    """Have a file in the place of the directory that files are staged in, as a volume that was lost would leave it."""
    scene.write(RECORDS // 4)
    scene.wait_settled()
    until(lambda: not list((lake / "staging").iterdir()), what="an empty directory")
    (lake / "staging").rename(lake / "gone")
    (lake / "staging").touch()
    scene.write(RECORDS // 4)
    until(lambda: scene.members[-1].metric("drxbridge_circuit_state", state="open"), what="an open circuit")
    time.sleep(away_s)
    (lake / "staging").unlink()
    (lake / "gone").rename(lake / "staging")


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.kills}-{case.first}-{case.members}-{case.frozen or 0}-{case.away_s:g}"
)
def test_every_event_of_the_log_is_in_the_lake_once(played: Callable[[], None]) -> None:
    played()
