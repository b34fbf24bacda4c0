"""A member that is frozen while its group is forgotten and begun anew, then thaws: what it holds has no effect.

Epochs that began again with the group would let it pass the fence, and the new owner would go on behind the
records that it settles, without having applied those before.
"""

import asyncio
from collections.abc import Callable
from typing import get_args

import pytest

from tests.faults.appending import Mode, appending
from tests.faults.scene import Ground, Scene
from tests.faults.test_zombies import POINTS
from tests.faults.troubles import MAX_POLL_S, thaw, wait_frozen
from tests.integration.consumer_process import consumer_environment, drx_consumer
from tests.postgres import execute
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 600
CASES = get_args(Mode)


def play(ground: Ground, case: Mode, seed: int) -> None:
    """Freeze one in the middle of the log, and its successor at the beginning; thaw the first, then the other."""
    with appending(ground, case, Lives.of_records(RECORDS, seed=seed), partitions=1) as scene:
        scene.write()
        zombie = scene.member(f"before_fence:stop@{POINTS[case]['before_fence']}", MAX_POLL_S)
        wait_frozen(zombie)
        scene.forget_members()
        _forget(scene)
        execute(scene.dsn, "truncate appended")
        successor = scene.member("before_fence:stop@1")
        wait_frozen(successor)
        thaw(zombie)
        successor.thaw()
        scene.finish()


def _forget(scene: Scene) -> None:
    env = consumer_environment(
        bootstrap_servers=scene.ground.bootstrap_servers,
        dsn=scene.dsn,
        env=scene.subject.environment,
        **scene.subject.settings(),
    )
    code, _, err = asyncio.run(drx_consumer(env, "forget", scene.subject.name, "--reason", "a drill"))
    assert code == 0, err


@pytest.mark.parametrize("case", CASES)
def test_a_member_of_before_the_forgetting_settles_nothing(played: Callable[[], None]) -> None:
    played()
