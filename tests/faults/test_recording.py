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
# The write after which the first process of a group dies, and how many records a later one gets on by.
_VISIT = 4
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
    lives = Lives.of_records(RECORDS + 2 * _VISIT * case.kills, seed=seed)
    with Server() as server, recording(ground, lives, server) as scenes:
        for scene in scenes:
            scene.write(RECORDS // 2)
        for number in range(case.kills):
            kill(scenes, after_a_write=not number)
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


def kill(scenes: list[Scene], *, after_a_write: bool) -> None:
    """Kill a process of each group: after a write and before its commit, or at any moment once it has got on.

    A record at which process after process dies would be parked, as it should be.
    """
    marks = [scene.settled() for scene in scenes]
    dying = [scene.member(f"{AFTER_EFFECT}:kill@{_VISIT}" if after_a_write else "") for scene in scenes]
    for scene in scenes:
        scene.write(2 * _VISIT)
    for scene, mark, each in zip(scenes, marks, dying, strict=True):
        if after_a_write:
            assert each.ended() == -signal.SIGKILL, each.output()
        else:
            scene.wait_settled(mark + _VISIT)
            each.kill()


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
