"""A member that is frozen until the group has gone on without it, then thaws: nothing it still holds has an effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import psutil
import pytest

from bridge.runtime.failpoints import AFTER_EFFECT, BETWEEN_CLAIM_AND_SEEK
from tests.faults.scene import Ground, Mode, appending
from tests.faults.watch import watched
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.ingress_process import until
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 900
# A member that does not poll for this long has left, by its own client's word; longer than the session of 6 s.
MAX_POLL_S = "8"
# It has applied all there is and waits for more: what is written then reaches the frozen process, and is its to apply
# when it thaws, since it knows nothing of what happened meanwhile.
IDLE = "idle"


class Case(NamedTuple):
    """How records are handled, and where the member is frozen."""

    mode: Mode
    where: str


CASES = [
    *(Case(mode, where) for mode in get_args(Mode) for where in (IDLE, BETWEEN_CLAIM_AND_SEEK)),
    # PostgreSQL ends the transaction that it holds open, after 30 s.
    *(pytest.param(Case("lanes", AFTER_EFFECT), marks=pytest.mark.faults),),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Freeze one, have another take over and finish, thaw the first and see what it does."""
    with appending(ground, case.mode, Lives.of_records(RECORDS, seed=seed), partitions=1) as scene:
        scene.write(RECORDS // 3)
        zombie = scene.member("" if case.where == IDLE else f"{case.where}:stop", KAFKA__MAX_POLL_S=MAX_POLL_S)
        if case.where == IDLE:
            scene.wait_settled()
            zombie.freeze()
        until(lambda: _frozen(zombie), what="a frozen member")
        scene.write(RECORDS // 3)
        scene.member()
        with watched(scene) as offsets:
            scene.wait_settled()
            zombie.thaw()
            until(lambda: _knows(zombie), what="a member that knows that it was away")
            scene.write()
            scene.wait_settled()
            scene.release()
        scene.check_effects()
        assert offsets.steps_back == []


def _frozen(process: ConsumerProcess) -> bool:
    return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


def _knows(process: ConsumerProcess) -> bool:
    """Whether its transaction met the fence, or its client told it first."""
    fenced = process.metric("drxbridge_fence_rejected_total")
    return fenced + process.metric("drxbridge_consumer_rebalances_total", kind="lost") > 0


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_what_a_thawed_member_still_holds_has_no_effect(case: Case, together: Callable[[object], None]) -> None:
    together(case)
