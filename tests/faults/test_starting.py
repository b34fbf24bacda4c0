"""Three groups of `workflow` at once, killed, frozen or without a server: no workflow is missed or started twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from bridge.runtime.failpoints import AFTER_EFFECT
from tests.faults.scene import Ground, Scene
from tests.faults.starting import ENDS, OVER, WAITING, starting
from tests.integration.service_process import until
from tests.postgres import execute
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; about every third is a call.
RECORDS = 150
# The record after whose call the first process of a group dies, and how many records a later one gets on by.
_VISIT = 4
MAX_POLL_S = "8"


class Case(NamedTuple):
    """How often a process of each group dies, or for how long the server answers nothing."""

    kills: int = 0
    away_s: float = 0.0
    frozen: bool = False


CASES = [
    Case(kills=1),
    Case(away_s=2.0),
    *(pytest.param(each, marks=pytest.mark.faults) for each in (Case(kills=20), Case(away_s=300.0), Case(frozen=True))),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Do it to three groups, and compare what the server was told with what was due."""
    lives = Lives.of_records(RECORDS + 2 * _VISIT * case.kills, seed=seed)
    directory = ground.directory / f"temporal-{'-'.join(map(str, case))}"
    directory.mkdir()
    with TemporalServer(directory) as server, starting(ground, lives, server) as scenes:
        for scene in scenes:
            scene.write(RECORDS // 2)
        for number in range(case.kills):
            kill(scenes, after_a_call=not number)
        for scene in scenes:
            scene.member(KAFKA__MAX_POLL_S=MAX_POLL_S)
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, server, case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            wait_started(scene, WAITING + OVER)
            execute(scene.dsn, ENDS)
            wait_started(scene, OVER, "resolved_at is not null")
            scene.finish()


def kill(scenes: Sequence[Scene], *, after_a_call: bool) -> None:
    """Kill a process of each group: after a call and before its commit, or at any moment once it has got on."""
    marks = [scene.settled() for scene in scenes]
    dying = [scene.member(f"{AFTER_EFFECT}:kill@{_VISIT}" if after_a_call else "") for scene in scenes]
    for scene in scenes:
        scene.write(2 * _VISIT)
    for scene, mark, each in zip(scenes, marks, dying, strict=True):
        if after_a_call:
            assert each.ended() == -signal.SIGKILL, each.output()
        else:
            scene.wait_settled(mark + _VISIT)
            each.kill()


def be_away(scenes: Sequence[Scene], server: TemporalServer, away_s: float) -> None:
    """Have the server answer nothing until every circuit is open, and for that long besides."""
    with server.frozen():
        for scene in scenes:
            scene.write()
        until(
            lambda: all(scene.members[-1].metric("drxbridge_circuit_state", state="open") for scene in scenes),
            what="open circuits",
        )
        time.sleep(away_s)


def freeze(scenes: Sequence[Scene]) -> None:
    """Freeze the member of each group until another has done its work."""
    for scene in scenes:
        scene.members[-1].freeze()
    for scene in scenes:
        scene.member()
        scene.write()
    for scene in scenes:
        scene.wait_settled()
        scene.members[-2].thaw()


def wait_started(scene: Scene, many: int, which: str = "true") -> None:
    """Wait until the table of started workflows has `many` rows that meet the condition `which`."""
    table = f'"{scene.group.replace(".", "_")}".started'
    until(
        lambda: scene.ask(f"select count(*) from {table} where {which}") == [(many,)],  # noqa: S608 - ours
        what=f"{many} workflows for what waits",
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.frozen}")
def test_three_groups_end_with_every_workflow_started_once(played: Callable[[], None]) -> None:
    played()
