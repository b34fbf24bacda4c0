"""Three groups of `fhir` at once, killed, frozen or without their server: nothing is lost, parked or there twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from bridge.runtime.failpoints import AFTER_EFFECT
from tests.faults.recording import Server, recording
from tests.faults.scene import Ground, Scene
from tests.integration.service_process import until
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; each is a transaction of the server.
RECORDS = 90
# A later visit each time: a process gets on by some records before it dies.
_VISITS = (5, 20)
MAX_POLL_S = "8"


class Case(NamedTuple):
    """How often a process of each group dies after a write and before its commit, or for how long what is away."""

    kills: int = 0
    away_s: float = 0.0
    frozen: bool = False


CASES = [
    Case(kills=1),
    Case(away_s=3.0),
    *(pytest.param(each, marks=pytest.mark.faults) for each in (Case(kills=20), Case(away_s=300.0), Case(frozen=True))),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Do it to three groups, and compare what is on the server with what should be."""
    lives = Lives.of_records(RECORDS, seed=seed)
    with Server() as server, recording(ground, lives, server) as scenes:
        for scene in scenes:
            scene.write(RECORDS // 2)
        for number in range(case.kills):
            kill(scenes, _VISITS[number % len(_VISITS)])
        for scene in scenes:
            scene.member(KAFKA__MAX_POLL_S=MAX_POLL_S)
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, server, case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            scene.finish()
        # A repeat of what was written already is no new version: none has more than its key has events.
        assert max(server.versions().values()) <= max(len(lives.events(each)) for each in range(lives.prescriptions))


def kill(scenes: list[Scene], visit: int) -> None:
    """Have a process of each group die after a write and before its commit."""
    dying = [scene.member(f"{AFTER_EFFECT}:kill@{visit}") for scene in scenes]
    for scene in scenes:
        scene.write(RECORDS // 30)
    for each in dying:
        assert each.ended() == -signal.SIGKILL, each.output()


def be_away(scenes: list[Scene], server: Server, away_s: float) -> None:
    """Take the server away until every circuit is open, and for that long besides."""
    server.close()
    for scene in scenes:
        scene.write()
    until(
        lambda: all(scene.members[-1].metric("drxbridge_circuit_state", state="open") for scene in scenes),
        what="open circuits",
    )
    time.sleep(away_s)
    server.open()


def freeze(scenes: list[Scene]) -> None:
    """Freeze the member of each group until another has done its work."""
    for scene in scenes:
        scene.members[-1].freeze()
    for scene in scenes:
        scene.member()
        scene.write()
    for scene in scenes:
        scene.wait_settled()
        scene.members[-2].thaw()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.frozen}")
def test_three_groups_end_with_what_their_events_come_to(played: Callable[[], None]) -> None:
    played()
