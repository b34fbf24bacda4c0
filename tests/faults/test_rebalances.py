import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest

from tests.faults.scene import Ground, Scene
from tests.faults.subjects import Kind, scene_with
from tests.faults.watch import watched
from tests.integration.consumer_process import ConsumerProcess

pytestmark = pytest.mark.kafka

MEMBERS_MAX = 3
# Between two changes, at most.
PAUSE_S = 1.5


class Case(NamedTuple):
    kind: Kind
    changes: int
    kills: int


CASES = [
    *(Case(kind, 3, 1) for kind in ("batches", "read_model")),
    *(pytest.param(Case(kind, 10, 3), marks=pytest.mark.faults) for kind in get_args(Kind)),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    rng = random.Random(f"{seed}-{case}")  # noqa: S311 - moments, not keys
    steps = ["change"] * case.changes + ["kill"] * case.kills
    rng.shuffle(steps)
    with scene_with(ground, case.kind, busy_s=len(steps) * PAUSE_S, seed=seed) as scene:
        scene.write()
        staying = [scene.member().ready()]
        with watched(scene) as offsets:
            for step in steps:
                time.sleep(rng.uniform(0, PAUSE_S))
                _take(step, scene, staying, rng)
            scene.finish()
        assert offsets.steps_back == []


def _take(step: str, scene: Scene, staying: list[ConsumerProcess], rng: random.Random) -> None:
    comes = step == "change" and len(staying) < MEMBERS_MAX and rng.random() < 0.5
    if comes or len(staying) == 1:
        # Whatever is next may come before it has joined.
        staying.append(scene.member().live())
    if step == "kill":
        staying.pop(rng.randrange(len(staying) - 1)).kill()
    elif not comes:
        staying.pop(rng.randrange(len(staying) - 1)).send_signal(signal.SIGTERM)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_rebalances_repeat_no_effect_and_take_no_offset_back(played: Callable[[], None]) -> None:
    played()
