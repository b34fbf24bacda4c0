import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple, get_args

import pytest

from tests.faults.scene import Ground, Scene
from tests.faults.subjects import Kind, Writer, scene_of_kind
from tests.faults.troubles import kill
from tests.postgres import EmbeddedPostgres
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of a process after its first settled record, and of the database while it is away: both end amid the other's trouble.
WORK_S, AWAY_S = 2.0, 4.0
# A pause at each event of the short case, so that there is work left when a process is killed.
PAUSE_S = 0.02


class Case(NamedTuple):
    kind: Kind | Writer
    rounds: int
    records: int
    pause_s: float = 0.0


CASES = [
    Case("read_model", 2, 800, PAUSE_S),
    *(Case(kind, 1, 500) for kind in get_args(Writer)),
    *(pytest.param(Case(kind, 10, 100_000), marks=pytest.mark.faults) for kind in (*get_args(Kind), *get_args(Writer))),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    rng = random.Random(f"{seed}-{case}")  # noqa: S311 - moments, not keys
    directory = ground.directory / f"outages-{case.kind}-{case.rounds}"
    server = EmbeddedPostgres(directory)
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        # Files of the archive are of one day each.
        lives = Lives.of_records(case.records, seed=seed, one_day=case.kind == "archive")
        own = replace(ground, directory=directory, postgres=server.dsn)
        scene = stack.enter_context(scene_of_kind(own, case.kind, lives, pause_s=case.pause_s))
        for _ in range(case.rounds):
            scene.write(case.records // case.rounds)
            kill(scene, 1, records=0)
            _kill_in_outage(scene, server, rng)
        scene.member(paused=False)
        scene.finish()


def _kill_in_outage(scene: Scene, server: EmbeddedPostgres, rng: random.Random) -> None:
    before = scene.settled()
    scene.member()
    scene.wait_settled(before + 1)
    time.sleep(rng.uniform(0, WORK_S))
    server.kill()
    for _ in range(2):
        time.sleep(rng.uniform(0, AWAY_S / 2))
        scene.members[-1].kill()
        scene.forget_members()
        scene.member()
    time.sleep(rng.uniform(0, AWAY_S / 2))
    server.start()
    time.sleep(rng.uniform(0, WORK_S))
    scene.members[-1].kill()
    scene.forget_members()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.rounds}")
def test_kills_while_the_database_is_away_cost_nothing(played: Callable[[], None]) -> None:
    played()
