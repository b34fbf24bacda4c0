"""A consumer that is killed again and again at any moment: each effect happens once, and in order."""

import random
import time
from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest

from tests.faults.scene import Ground, Scene
from tests.faults.subjects import Kind, scene_with
from tests.faults.watch import watched

pytestmark = pytest.mark.kafka

# Between two kills, at most: the time until something is seen to be settled, and the time until the kill.
WORK_S = 1.5


class Case(NamedTuple):
    kind: Kind
    kills: int


CASES = [
    *(Case(kind, 3) for kind in get_args(Kind)),
    *(pytest.param(Case(kind, 20), marks=pytest.mark.faults) for kind in get_args(Kind)),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    rng = random.Random(f"{seed}-{case}")  # noqa: S311 - moments, not keys
    with scene_with(ground, case.kind, busy_s=case.kills * WORK_S, seed=seed) as scene:
        scene.write()
        with watched(scene) as offsets:
            for _ in range(case.kills):
                _kill_at_random(scene, rng)
            unsettled = scene.written - scene.settled()
            scene.member(paused=False)
            scene.finish()
        assert offsets.steps_back == []
        assert unsettled > 0, "the last kill came when nothing was left to do"


def _kill_at_random(scene: Scene, rng: random.Random) -> None:
    """Kill one while it settles records or, one time in four, while it starts, joins or claims."""
    before, member = scene.settled(), scene.member()
    if rng.random() < 0.75:
        scene.wait_settled(before + 1)
        time.sleep(rng.uniform(0, 1))
    else:
        member.live()
        time.sleep(rng.uniform(0, 3))
    member.kill()
    scene.forget_members()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_random_kills_repeat_no_effect_and_leave_none_out(played: Callable[[], None]) -> None:
    played()
