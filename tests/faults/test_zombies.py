from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from tests.faults.scene import Ground
from tests.faults.subjects import Kind, scene_of_kind
from tests.faults.troubles import MAX_POLL_S, thaw, wait_frozen
from tests.faults.watch import watched
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 900
# It has applied all there is and waits for more: what is written then reaches the frozen process.
IDLE = "idle"
# Which visit of a point freezes it: the first where lanes run side by side, since none of them may have a transaction
# open: PostgreSQL lets go of that only when a handler would be out of time.
POINTS: Mapping[Kind, Mapping[str, int]] = {
    "batches": {"before_fence": 3, "between_claim_and_seek": 1},
    "lanes": {"before_fence": 1, "between_claim_and_seek": 1, "after_effect_before_commit": 20},
    "forward": {"before_fence": 1, "after_effect_before_commit": 20},
}


class Case(NamedTuple):
    kind: Kind
    where: str


CASES = [
    *(Case(kind, "before_fence") for kind in ("batches", "lanes")),
    Case("batches", IDLE),
    Case("lanes", "between_claim_and_seek"),
    *(
        pytest.param(case, marks=pytest.mark.faults)
        for case in (
            Case("lanes", IDLE),
            Case("batches", "between_claim_and_seek"),
            # PostgreSQL ends the transaction that it holds open, after 40 s.
            Case("lanes", "after_effect_before_commit"),
            # What it then holds was posted, and is not settled; here no transaction is open.
            Case("forward", "after_effect_before_commit"),
            Case("forward", "before_fence"),
            Case("forward", IDLE),
        )
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    with scene_of_kind(ground, case.kind, Lives.of_records(RECORDS, seed=seed), partitions=1) as scene:
        scene.write(RECORDS // 3)
        point = "" if case.where == IDLE else f"{case.where}:stop@{POINTS[case.kind][case.where]}"
        zombie = scene.member(point, MAX_POLL_S)
        if case.where == IDLE:
            scene.wait_settled()
            zombie.freeze()
        wait_frozen(zombie)
        scene.forget_members()
        scene.write(RECORDS // 3)
        scene.member()
        with watched(scene) as offsets:
            scene.wait_settled()
            thaw(zombie)
            fenced = zombie.metric("drxbridge_fence_rejected_total")
            scene.finish()
        assert offsets.steps_back == []
        assert fenced > 0 or case.where != "before_fence"


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_what_a_thawed_member_still_holds_has_no_effect(played: Callable[[], None]) -> None:
    played()
