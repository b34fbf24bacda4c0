"""Three groups of `workflow` at once, killed, frozen or without a server: no workflow is missed or started twice."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.faults.scene import Ground
from tests.faults.starting import end_waits, starting
from tests.faults.troubles import MAX_POLL_S, RECORDS_PER_KILL, be_away, freeze, kill
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; about every third is a call.
RECORDS = 150


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
    lives = Lives.of_records(RECORDS + RECORDS_PER_KILL * case.kills, seed=seed)
    directory = ground.directory / f"temporal-{'-'.join(map(str, case))}"
    directory.mkdir()
    with TemporalServer(directory) as server, starting(ground, lives, server) as scenes:
        for scene in scenes:
            scene.write(RECORDS // 2)
        kill(scenes, case.kills)
        for scene in scenes:
            scene.member("", MAX_POLL_S)
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, server.frozen(), case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            end_waits(scene)
            scene.finish()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.frozen}")
def test_three_groups_end_with_every_workflow_started_once(played: Callable[[], None]) -> None:
    played()
