"""Three groups of `hl7v2` at once, killed, frozen or without receivers: nothing is lost, parked or out of order."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from tests.faults.messaging import Receiver, messaging
from tests.faults.scene import Ground, Scene
from tests.faults.troubles import MAX_POLL_S, RECORDS_PER_KILL, be_away, closed, freeze, kill
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; each is a message.
RECORDS = 150


class Case(NamedTuple):
    """How often a process of each group dies, or for how long the receivers are away.

    Attributes:
        restarts: How often the receivers go away for a moment, amid whatever is under way.
    """

    kills: int = 0
    away_s: float = 0.0
    restarts: int = 0
    frozen: bool = False


CASES = [
    Case(kills=1),
    Case(away_s=2.0, restarts=3),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        for each in (Case(kills=20, restarts=10), Case(away_s=300.0), Case(frozen=True))
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    lives = Lives.of_records(RECORDS + RECORDS_PER_KILL * case.kills, seed=seed)
    with messaging(ground, lives) as pairs:
        scenes, receivers = [scene for scene, _ in pairs], [receiver for _, receiver in pairs]
        for scene in scenes:
            scene.write(RECORDS // 2)
        kill(scenes, case.kills)
        for scene in scenes:
            scene.member("", MAX_POLL_S)
            scene.wait_settled(1)
        for _ in range(case.restarts):
            restart(pairs)
        if case.away_s:
            be_away(scenes, closed(receivers), case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            scene.finish()


def restart(pairs: Sequence[tuple[Scene, Receiver]]) -> None:
    for scene, receiver in pairs:
        scene.write(RECORDS // 50)
        receiver.close()
        receiver.open()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.restarts}-{case.frozen}")
def test_three_groups_end_with_every_message_in_order(played: Callable[[], None]) -> None:
    played()
