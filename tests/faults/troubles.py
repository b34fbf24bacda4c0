"""Faults of several groups at once: their processes are killed or frozen, or their sinks are down."""

import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain, islice, repeat

import psutil

from consumers.runtime.circuit import OPEN_AFTER
from tests.faults.scene import Scene
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.service_process import HANG_S, until

# The effect after which a process of a group dies, and how many records another gets on by before it is killed.
VISIT = 4
AFTER_AN_EFFECT = f"after_effect_before_commit:kill@{VISIT}"
# A member that does not poll for this long has left, by its own client's word; longer than the session of 6 s.
MAX_POLL_S = 8.0
_FAILURES = "drxbridge_consumer_sink_failures_total"
# A transaction that a frozen member holds open is ended by PostgreSQL once a handler would be out of time: two minutes.
OPEN_TRANSACTION_S = 2 * HANG_S


def kill(scene: Scene, kills: int, *, points: Iterable[str] = (AFTER_AN_EFFECT,), records: int) -> None:
    """Kill `kills` processes one after the other, with `records` written for each.

    If `points`, the failpoints of the kills, are empty or used up, processes are killed during their work after
    catching up; a kill without a failpoint needs at least `VISIT` records.
    """
    for point in islice(chain(points, repeat("")), kills):
        dying = scene.member(point)
        if not point:
            scene.wait_settled()
        scene.write(records)
        if point:
            assert dying.ended() == -signal.SIGKILL, dying.output()
        else:
            scene.wait_settled(scene.written - records + VISIT)
            dying.kill()
        scene.forget_members()


def be_away(
    scenes: Sequence[Scene],
    away: AbstractContextManager[None],
    away_s: float,
    *,
    kills: int = 0,
    records: int | None = None,
) -> None:
    """Keep sinks unavailable until each consumer has failed often, and for the given time.

    Meanwhile `records` are written (all that are left if None), and `kills` processes of each group are killed, as a
    liveness probe or a full node would.
    """
    with away:
        for scene in scenes:
            scene.write(records)
        until(
            lambda: all(scene.members[-1].metric(_FAILURES) >= OPEN_AFTER for scene in scenes), what="calls that fail"
        )
        for _ in range(kills):
            for scene in scenes:
                scene.members[-1].kill()
                scene.forget_members()
                scene.member()
            time.sleep(away_s / kills)
        time.sleep(0 if kills else away_s)


def wait_frozen(process: ConsumerProcess) -> None:
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, what="a frozen member")


def thaw(zombie: ConsumerProcess) -> None:
    """Let it continue, and wait until it has noticed the freeze."""
    kinds = ("revoked", "lost")
    zombie.thaw()
    until(
        lambda: any(zombie.metric("drxbridge_consumer_rebalances_total", kind=kind) for kind in kinds),
        what="a member that knows that it was away",
    )
