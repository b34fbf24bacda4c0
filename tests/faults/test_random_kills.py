"""A consumer that is killed again and again at any moment: each effect happens once, and in order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest

from tests.faults.scene import Ground, Mode, Scene, appending
from tests.faults.watch import watched
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

SESSION_S = "10"
# Of each call of the handler; bounds what a process can do between two kills, whatever the machine.
PAUSE_S = {"batches": 0.1, "lanes": 0.005}
# More than is settled between two kills: four partitions at 200 records/s, for less than 1.5 s.
RECORDS_PER_KILL = 1_200


class Case(NamedTuple):
    """How records are handled, and how often the process is killed."""

    mode: Mode
    kills: int


CASES = [
    *(Case(mode, 3) for mode in get_args(Mode)),
    *(pytest.param(Case(mode, 20), marks=pytest.mark.faults) for mode in get_args(Mode)),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Kill so often, then have one more process finish."""
    rng = random.Random(f"{seed}-{case}")  # noqa: S311 - moments, not keys
    lives = Lives.of_records(case.kills * RECORDS_PER_KILL, seed=seed)
    with appending(ground, case.mode, lives, pause_s=PAUSE_S[case.mode], session_s=SESSION_S) as scene:
        scene.write()
        _kill_at_random(scene, rng)
        with watched(scene) as offsets:
            for _ in range(case.kills - 1):
                _kill_at_random(scene, rng)
            unsettled = scene.written - scene.settled()
            scene.member()
            scene.wait_settled()
            scene.release()
        scene.check_effects()
        assert offsets.steps_back == []
        assert unsettled > 0, "the last kill came when nothing was left to do"


def _kill_at_random(scene: Scene, rng: random.Random) -> None:
    """Kill one while it settles records or, one time in four, while it starts, joins or claims."""
    before = scene.settled()
    member = scene.member()
    if rng.random() < 0.75:
        scene.wait_settled(before + 1)
        time.sleep(rng.uniform(0, 1))
    else:
        member.live()
        time.sleep(rng.uniform(0, 3))
    member.kill()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_random_kills_repeat_no_effect_and_leave_none_out(case: Case, together: Callable[[object], None]) -> None:
    together(case)
