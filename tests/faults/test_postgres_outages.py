"""The database goes away: members stay in their group, set nothing aside, and catch up."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.faults.scene import REFUSED, Ground, Scene, appending
from tests.integration.ingress_process import until
from tests.postgres import EmbeddedPostgres
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 4_000
# The outage comes when records are in flight.
PAUSE_S = 0.02


@pytest.mark.parametrize("away_s", [5, pytest.param(30, marks=pytest.mark.faults)])
def test_an_outage_of_the_database_is_waited_for(
    away_s: float, ground: Ground, own_postgres: EmbeddedPostgres, seed: int
) -> None:
    """Both modes at the same time, two members each: a member that left would make the other one rebalance."""
    own, lives = replace(ground, postgres=own_postgres.dsn), Lives.of_records(RECORDS, seed=seed)
    with ExitStack() as stack:
        scenes = [
            stack.enter_context(appending(own, "batches", lives, pause_s=PAUSE_S)),
            stack.enter_context(appending(own, "lanes", lives, pause_s=PAUSE_S)),
        ]
        for scene in scenes:
            scene.member().ready()
            scene.member().ready()
        until(lambda: all(map(_balanced, scenes)), what="two members with partitions")
        for scene in scenes:
            scene.write()
        for scene in scenes:
            scene.wait_settled(1)
        before = [_rebalances(scene) for scene in scenes]
        own_postgres.kill()
        until(lambda: all(map(_paused, scenes)), what="paused partitions")
        time.sleep(away_s)
        own_postgres.start()
        for scene in scenes:
            scene.wait_settled()
        after = [_rebalances(scene) for scene in scenes]
        for scene in scenes:
            parked = {key for (key,) in scene.ask("select key from drx_consumer.parked_key")}
            assert parked == {lives.prescription_id(REFUSED)}
            scene.release()
            scene.check_effects()
        assert after == before


def _balanced(scene: Scene) -> bool:
    return all(each.metric("drxbridge_consumer_assigned_partitions") > 0 for each in scene.members)


def _paused(scene: Scene) -> bool:
    return any(each.metric("drxbridge_consumer_paused_partitions") > 0 for each in scene.members)


def _rebalances(scene: Scene) -> list[float]:
    return [each.metric("drxbridge_consumer_rebalances_total") for each in scene.members]
