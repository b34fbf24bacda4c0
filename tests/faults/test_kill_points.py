"""A consumer that is killed at the worst moments: each effect happens once, and in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from bridge.runtime.failpoints import (
    AFTER_EFFECT,
    BATCH_BEFORE_OFFSET,
    BETWEEN_CLAIM_AND_SEEK,
    WHILE_PARKING,
    WHILE_RELEASING,
)
from tests.faults.appending import Mode, appending, ask_release
from tests.faults.scene import Ground
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Which visit of the point is the last: where something should have been settled before, not the first.
POINTS: Mapping[Mode, Mapping[str, int]] = {
    "batches": {
        BATCH_BEFORE_OFFSET: 3,
        AFTER_EFFECT: 4,
        WHILE_PARKING: 1,
        WHILE_RELEASING: 2,
        BETWEEN_CLAIM_AND_SEEK: 3,
    },
    "lanes": {AFTER_EFFECT: 20, WHILE_PARKING: 1, WHILE_RELEASING: 2},
}


class Case(NamedTuple):
    mode: Mode
    point: str


def play(ground: Ground, case: Case, seed: int) -> None:
    with appending(ground, case.mode, Lives(60, seed=seed)) as scene:
        scene.write()
        first = scene.member(f"{case.point}:kill@{POINTS[case.mode][case.point]}")
        if case.point == WHILE_RELEASING:
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
