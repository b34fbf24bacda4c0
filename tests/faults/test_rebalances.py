"""Members that come, go and die all the time: each effect happens once, in order, and no offset goes back."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple, get_args

import pytest

from tests.faults.scene import Ground, Mode, Scene, appending
from tests.faults.watch import watched
from tests.integration.consumer_process import ConsumerProcess
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

MEMBERS_MAX = 3
# Each call of the handler takes at least this long, so that every rebalance meets records in flight.
PAUSE_S = {"batches": 0.1, "lanes": 0.01}
RECORDS_PER_CHANGE = 500


class Case(NamedTuple):
    """How records are handled, how often a member comes or goes, and how often one is killed."""

    mode: Mode
    changes: int
    kills: int


CASES = [
    *(Case(mode, 3, 1) for mode in get_args(Mode)),
    *(pytest.param(Case(mode, 10, 3), marks=pytest.mark.faults) for mode in get_args(Mode)),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Have members come, go and die, then have whoever is left finish."""
    rng = random.Random(f"{seed}-{case}")  # noqa: S311 - moments, not keys
    steps = ["change"] * case.changes + ["kill"] * case.kills
    rng.shuffle(steps)
    lives = Lives.of_records(len(steps) * RECORDS_PER_CHANGE, seed=seed)
    with appending(ground, case.mode, lives, pause_s=PAUSE_S[case.mode]) as scene:
        scene.write()
        staying = [scene.member().ready()]
        with watched(scene) as offsets:
            for step in steps:
                time.sleep(rng.uniform(0, 1.5))
                _take(step, scene, staying, rng)
            scene.wait_settled()
            scene.release()
        scene.check_effects()
        assert offsets.steps_back == []


def _take(step: str, scene: Scene, staying: list[ConsumerProcess], rng: random.Random) -> None:
    """Let one member come, go or die; one always stays."""
    comes = step == "change" and len(staying) < MEMBERS_MAX and rng.random() < 0.5
    if comes or len(staying) == 1:
        # Whatever is next may come before it has joined.
        staying.append(scene.member().live())
    if step == "kill":
        staying.pop(rng.randrange(len(staying) - 1)).kill()
    elif not comes:
        staying.pop(rng.randrange(len(staying) - 1)).send_signal(signal.SIGTERM)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_rebalances_repeat_no_effect_and_take_no_offset_back(case: Case, together: Callable[[object], None]) -> None:
    together(case)
