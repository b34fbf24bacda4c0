"""Three groups of `hl7v2` at once, killed, frozen or without receivers: nothing is lost, parked or out of order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from bridge.runtime.failpoints import AFTER_EFFECT
from tests.faults.messaging import Receiver, messaging
from tests.faults.scene import Ground, Scene
from tests.integration.service_process import until
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; each is a message.
RECORDS = 150
# A later visit each time: a process gets on by some records before it dies.
VISITS = (5, 20)
MAX_POLL_S = "8"

Scenes = Sequence[tuple[Scene, Receiver]]


class Case(NamedTuple):
    """How often a process of each group dies between a message and its commit, or for how long the receivers are away.

    Attributes:
        restarts: How often the receivers go away for a moment, amid whatever is under way.
    """

    kills: int = 0
    away_s: float = 0.0
    restarts: int = 0
    frozen: bool = False


CASES = [
    Case(kills=1),
    Case(away_s=2.0, restarts=3),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        for each in (Case(kills=20, restarts=10), Case(away_s=300.0), Case(frozen=True))
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Do it to three groups, and compare what the receivers have with what was due."""
    lives = Lives.of_records(RECORDS, seed=seed)
    with messaging(ground, lives) as scenes:
        for scene, _ in scenes:
            scene.write(RECORDS // 2)
        for number in range(case.kills):
            kill(scenes, VISITS[number % len(VISITS)])
        for scene, _ in scenes:
            scene.member(KAFKA__MAX_POLL_S=MAX_POLL_S)
            scene.wait_settled(1)
        for _ in range(case.restarts):
            restart(scenes)
        if case.away_s:
            be_away(scenes, case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene, _ in scenes:
            scene.finish()


def kill(scenes: Scenes, visit: int) -> None:
    """Have a process of each group die after a message and before its commit."""
    dying = [scene.member(f"{AFTER_EFFECT}:kill@{visit}") for scene, _ in scenes]
    for scene, _ in scenes:
        scene.write(RECORDS // 50)
    for each in dying:
        assert each.ended() == -signal.SIGKILL, each.output()


def restart(scenes: Scenes) -> None:
    """Take the receivers away and bring them back at once."""
    for scene, receiver in scenes:
        scene.write(RECORDS // 50)
        receiver.close()
        receiver.open()


def be_away(scenes: Scenes, away_s: float) -> None:
    """Take the receivers away until every circuit is open, and for that long besides."""
    for scene, receiver in scenes:
        receiver.close()
        scene.write()
    until(
        lambda: all(scene.members[-1].metric("drxbridge_circuit_state", state="open") for scene, _ in scenes),
        what="open circuits",
    )
    time.sleep(away_s)
    for _, receiver in scenes:
        receiver.open()


def freeze(scenes: Scenes) -> None:
    """Freeze the member of each group until another has done its work."""
    for scene, _ in scenes:
        scene.members[-1].freeze()
    for scene, _ in scenes:
        scene.member()
        scene.write()
    for scene, _ in scenes:
        scene.wait_settled()
        scene.members[-2].thaw()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.restarts}-{case.frozen}")
def test_three_groups_end_with_every_message_in_order(played: Callable[[], None]) -> None:
    played()
