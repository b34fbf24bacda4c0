"""A service that handlers call is away, or fails some calls: nothing is parked, lost, doubled or out of order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, get_args

import pytest

from tests.faults.appending import Calling, appending
from tests.faults.forwarding import forwarding
from tests.faults.scene import Ground
from tests.faults.sink import Sink
from tests.faults.troubles import be_away, closed
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; each is a call of the service.
RECORDS = 400


class Case(NamedTuple):
    """How long the service is away, or how many of a hundred calls it fails."""

    away_s: float = 0.0
    percent: int = 0


CASES = [
    Case(away_s=5.0),
    Case(percent=30),
    pytest.param(Case(away_s=300.0), marks=pytest.mark.faults),
    *(pytest.param(Case(percent=each), marks=pytest.mark.faults) for each in (1, 10, 50, 70)),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Let four groups at once, one of each mode and `forward`, live through it."""
    lives = Lives.of_records(RECORDS, seed=seed)
    with Sink(seed) as sink, ExitStack() as stack:
        scenes = [stack.enter_context(appending(ground, mode, lives, sink=sink)) for mode in get_args(Calling)]
        scenes.append(stack.enter_context(forwarding(ground, lives, sink=sink)))
        for scene in scenes:
            scene.member()
            scene.write(RECORDS // 2)
        sink.fail(case.percent)
        for scene in scenes:
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, closed([sink]), case.away_s)
        for scene in scenes:
            scene.finish()
            # But for the one prescription that the handler refuses.
            assert all(each.metric("drxbridge_park_total", **{"class": "systemic"}) == 0 for each in scene.members)
            assert all(each.metric("drxbridge_park_total", **{"class": "transient"}) == 0 for each in scene.members)
        assert bool(sink.failed) == bool(case.percent)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.away_s:g}-{case.percent}")
def test_a_service_that_fails_costs_no_group_anything(played: Callable[[], None]) -> None:
    played()
