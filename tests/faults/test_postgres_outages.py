import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import get_args

import pytest

from tests.faults.scene import Ground, Scene
from tests.faults.subjects import Kind, scene_with
from tests.integration.service_process import until
from tests.postgres import EmbeddedPostgres

pytestmark = pytest.mark.kafka

# Nobody is killed here, and a busy machine is no reason to leave the group.
SESSION_S = "20"
# Of work in all; half of it comes when the database is away already.
BUSY_S = 4.0


def play(ground: Ground, case: float, seed: int) -> None:
    server = EmbeddedPostgres(ground.directory / f"postgres-{case}")
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        own = replace(ground, postgres=server.dsn)
        scenes = [stack.enter_context(scene_with(own, kind, busy_s=BUSY_S, seed=seed)) for kind in get_args(Kind)]
        for scene in scenes:
            scene.member(KAFKA__SESSION_S=SESSION_S)
            scene.member(KAFKA__SESSION_S=SESSION_S)
        for member in (each for scene in scenes for each in scene.members):
            member.live()
        until(lambda: all(map(_balanced, scenes)), what="two members with partitions")
        for scene in scenes:
            scene.write(scene.lives.count // 2)
        for scene in scenes:
            scene.wait_settled(1)
        before = [_rebalances(scene) for scene in scenes]
        server.kill()
        for scene in scenes:
            scene.write()
        until(lambda: all(map(_opened, scenes)), what="open circuits")
        time.sleep(case)
        server.start()
        for scene in scenes:
            scene.finish()
        assert [_rebalances(scene) for scene in scenes] == before


def _balanced(scene: Scene) -> bool:
    return all(each.metric("drxbridge_consumer_assigned_partitions") > 0 for each in scene.members)


def _opened(scene: Scene) -> bool:
    return any(each.metric("drxbridge_circuit_state", state="open") > 0 for each in scene.members)


def _rebalances(scene: Scene) -> list[float]:
    return [each.metric("drxbridge_consumer_rebalances_total") for each in scene.members]


@pytest.mark.parametrize("case", [5, pytest.param(30, marks=pytest.mark.faults)])
def test_an_outage_of_the_database_is_waited_for(played: Callable[[], None]) -> None:
    played()
