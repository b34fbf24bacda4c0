"""What is done to several groups at once: their processes die or freeze, or what they write to is away."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from bridge.runtime.failpoints import AFTER_EFFECT
from tests.faults.scene import Scene
from tests.integration.service_process import until

# The effect after which the first process of a group dies, and how many records a later one gets on by.
VISIT = 4
# Of what is killed so.
RECORDS_PER_KILL = 2 * VISIT


class Peer(Protocol):
    """What consumers write to."""

    def open(self) -> None:
        """Be there again."""

    def close(self) -> None:
        """Go away."""


def kill(scenes: Sequence[Scene], kills: int) -> None:
    """Kill a process of each group so often: after an effect and before its commit, then at any moment.

    A record at which process after process dies would be parked, as it should be.
    """
    for number in range(kills):
        marks = [scene.settled() for scene in scenes]
        dying = [scene.member("" if number else f"{AFTER_EFFECT}:kill@{VISIT}") for scene in scenes]
        for scene in scenes:
            scene.write(RECORDS_PER_KILL)
        for scene, mark, each in zip(scenes, marks, dying, strict=True):
            if number:
                scene.wait_settled(mark + VISIT)
                each.kill()
            else:
                assert each.ended() == -signal.SIGKILL, each.output()


@contextmanager
def closed(peers: Sequence[Peer]) -> Iterator[None]:
    """Take the peers away meanwhile."""
    for peer in peers:
        peer.close()
    yield
    for peer in peers:
        peer.open()


def be_away(scenes: Sequence[Scene], away: AbstractContextManager[None], away_s: float) -> None:
    """Hold what consumers write to away until every circuit is open, and for that long besides."""
    with away:
        for scene in scenes:
            scene.write()
        until(
            lambda: all(scene.members[-1].metric("drxbridge_circuit_state", state="open") for scene in scenes),
            what="open circuits",
        )
        time.sleep(away_s)


def freeze(scenes: Sequence[Scene]) -> None:
    """Freeze the member of each group until another has done its work."""
    for scene in scenes:
        scene.members[-1].freeze()
    for scene in scenes:
        scene.member()
        scene.write()
    for scene in scenes:
        scene.wait_settled()
        scene.members[-2].thaw()
