"""Three groups of `fhir` at once, killed, frozen or without their server: nothing is lost, parked or there twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.faults.recording import Server, recording
from tests.faults.scene import Ground
from tests.faults.troubles import MAX_POLL_S, RECORDS_PER_KILL, be_away, closed, freeze, kill
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; each is a transaction of the server.
RECORDS = 90
# The client has given up after `TIMEOUT_S`, and written again within its first pauses.
LATE_S = 9.0


class Case(NamedTuple):
    """How often a process of each group dies after a write and before its commit, or for how long what is away.

    Attributes:
        late: Of so many writes one is done after its client has given up and written again.
    """

    kills: int = 0
    away_s: float = 0.0
    frozen: bool = False
    late: int = 0


CASES = [
    Case(kills=1),
    Case(away_s=3.0),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        for each in (Case(kills=20), Case(away_s=300.0), Case(frozen=True), Case(late=8))
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Do it to three groups, and compare what is on the server with what should be."""
    lives = Lives.of_records(RECORDS + RECORDS_PER_KILL * case.kills, seed=seed)
    with Server() as server, recording(ground, lives, server) as scenes:
        for scene in scenes:
            scene.write(RECORDS // 2)
        if case.late:
            server.fake.late_s = lambda number: 0.0 if number % case.late else LATE_S
        kill(scenes, case.kills)
        for scene in scenes:
            scene.member(KAFKA__MAX_POLL_S=MAX_POLL_S)
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, closed([server]), case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            scene.finish()
        # A repeat of what was written already is no new version: none has more than its key has events.
        assert max(server.versions().values()) <= max(len(lives.events(each)) for each in range(lives.prescriptions))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.frozen}-{case.late}")
def test_three_groups_end_with_what_their_events_come_to(played: Callable[[], None]) -> None:
    played()
