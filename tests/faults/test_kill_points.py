import signal
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from tests.faults.appending import Mode, appending, ask_release
from tests.faults.scene import Ground
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Which visit of the point is the last: where something should have been settled before, not the first.
POINTS: Mapping[Mode, Mapping[str, int]] = {
    "batches": {
        "batch_before_offset": 3,
        "after_effect_before_commit": 4,
        "while_parking": 1,
        "while_releasing": 2,
        "between_claim_and_seek": 3,
    },
    "lanes": {"after_effect_before_commit": 20, "while_parking": 1, "while_releasing": 2},
}


class Case(NamedTuple):
    mode: Mode
    point: str


def play(ground: Ground, case: Case, seed: int) -> None:
    with appending(ground, case.mode, Lives(60, seed=seed)) as scene:
        scene.write()
        first = scene.member(f"{case.point}:kill@{POINTS[case.mode][case.point]}")
        if case.point == "while_releasing":
            scene.wait_settled()
            ask_release(scene)
        assert first.ended() == -signal.SIGKILL, first.output()
        scene.forget_members()
        scene.member()
        scene.finish()


@pytest.mark.parametrize(
    "case", [Case(mode, point) for mode, points in POINTS.items() for point in points], ids="-".join
)
def test_a_process_killed_there_has_no_effect_twice_and_none_out_of_order(played: Callable[[], None]) -> None:
    played()
