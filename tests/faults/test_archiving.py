"""`archive` killed at failpoints, frozen, rebalanced, or without its disk: each event is in the lake once."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import NamedTuple

import pytest

from tests.faults.archiving import archiving, without_staging
from tests.faults.scene import Ground, Scene
from tests.faults.troubles import MAX_POLL_S, OPEN_TRANSACTION_S, be_away, kill, thaw, wait_frozen
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 120
# Before and after a file is staged; after it is noted, and after files are published, before that is committed.
# Which visit is the last lets a process get on before it dies: each of the four partitions brings one.
POINTS = ("before_stage:kill@2", "after_stage:kill@3", "after_effect_before_commit:kill@3", "after_publish:kill@1")
# Written for each kill.
EACH = 40


class Case(NamedTuple):
    """The kills of a case, usually at successive failpoints, and further faults."""

    kills: int = 0  # number of kills, at the failpoints in turn
    first: int = 0  # failpoint of the first one
    members: int = 1  # processes that share the partitions while others come and go
    frozen: str = ""  # failpoint at which one is frozen until the group has continued without it
    away_s: float = 0.0  # seconds without a usable directory, after the circuit has opened


CASES = [
    # The four points; two by two, as they are played at the same time.
    Case(kills=2),
    Case(kills=2, first=2, members=3),
    Case(frozen="before_fence"),
    Case(away_s=1.0),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        for each in (Case(kills=25), Case(kills=25, first=2), Case(frozen="after_stage"), Case(away_s=300.0))
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    lives = Lives.of_records(RECORDS + EACH * case.kills, seed=seed)
    with archiving(ground, lives, partitions=1 if case.frozen else 4) as (scene, lake):
        kill(scene, case.kills, points=in_turn(case.first), records=EACH)
        if case.frozen:
            zombie = scene.member(f"{case.frozen}:stop@2", MAX_POLL_S)
            scene.write(RECORDS // 2)
            wait_frozen(zombie)
            scene.forget_members()
            scene.member()
            scene.wait_settled(still_s=OPEN_TRANSACTION_S)
            thaw(zombie)
        else:
            scene.member()
        if case.members > 1:
            come_and_go(scene, case.members)
        if case.away_s:
            scene.write(RECORDS // 4)
            scene.wait_settled()
            be_away([scene], without_staging(lake), case.away_s)
        scene.finish()
        if case.frozen == "after_stage":
            # What the frozen member has staged is not published: only its transaction would have made it count. A batch
            # that was tried twice may have left another one.
            assert any((lake / "staging").iterdir())


def in_turn(first: int) -> Iterator[str]:
    """Yield two points, then an empty text, and so on without end."""
    turns = cycle([*POINTS[first:], *POINTS[:first]])
    while True:
        yield from (next(turns), next(turns), "")


def come_and_go(scene: Scene, members: int) -> None:
    scene.write(RECORDS // 4)
    for _ in range(members - 1):
        scene.member()
        scene.write(RECORDS // 10)
    scene.wait_settled(RECORDS // 4)
    scene.members[0].kill()
    scene.write(RECORDS // 10)
    scene.wait_settled()


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.kills}-{case.first}-{case.members}-{case.frozen or 0}-{case.away_s:g}"
)
def test_every_event_of_the_log_is_in_the_lake_once(played: Callable[[], None]) -> None:
    played()
