"""The harness detects each promise that is broken on purpose."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from bridge.runtime.http_server import TURN_MAX
from tests.faults.ingress import rows_brokers, rows_process
from tests.faults.ingress.row import Outcome, Row, play
from tests.faults.ingress.scene import DRAINED_S, Scene, Stage, Tier
from tests.faults.ingress.traffic import Prescription
from tests.faults.sabotage import SABOTAGES

pytestmark = [
    pytest.mark.kafka,
    # The bridge is a process of its own. In the harness, aiokafka leaves its first connection open when it is given up
    # because brokers are frozen, and whichever test collects that garbage would be said to have failed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# Prescriptions: more than can be in flight, which is what the ingress takes in two turns (`TURN_MAX`) until it writes.
# Brokers that thaw write what is in flight; the rest waits in memory.
TOLD = 4 * TURN_MAX


async def told_in_an_outage(scene: Scene) -> None:
    """Freeze every broker, and tell prescriptions from the first event, which is in memory then, to the last."""

    async def tell(prescription: Prescription) -> None:
        for delivery in prescription.deliveries:
            await scene.load.deliver(delivery, stubborn=True)

    scene.brokers.pause()
    async with scene.load.open(), asyncio.TaskGroup() as group:
        for _ in range(TOLD):
            group.create_task(tell(scene.load.prescriptions.new()))


async def killed_in_an_outage(scene: Scene) -> None:
    """Before anything of it has come to the disk."""
    async with scene.load.poisson(scene.tier.rate):
        scene.brokers.pause()
        await asyncio.sleep(1)
        await scene.cut_short()
        await scene.heal()


async def killed_at_rest(scene: Scene) -> None:
    """Long after Kafka had what is sent again."""
    for _ in range(2):  # the first may be spooled, while the topics are read
        async with scene.load.poisson(scene.tier.rate):
            await asyncio.sleep(1)
        await scene.settled(DRAINED_S)
    await scene.kill()
    await rows_process.resend(scene)


TIER = Tier(factor=0.7, rate=60.0, at_once=20)
OUTAGE = Row("B6", "prescriptions told while all brokers are frozen", told_in_an_outage, effects=False)
NO_SPOOL = Row("B6", "all brokers frozen", rows_brokers.all_frozen, effects=False, settings={"SPOOL__ENABLED": "false"})
KILLED = Row("P1", "ingress killed in an outage", killed_in_an_outage, effects=False)
RESTARTED = Row("P1", "ingress killed at rest", killed_at_rest, effects=False, once=True)


class Case(NamedTuple):
    row: Row
    found: Callable[[Outcome], Sequence[str]]


CASES = {
    "ack_before_write": Case(KILLED, lambda outcome: outcome.verdict.lost),
    "drop_on_rebuild": Case(OUTAGE, lambda outcome: outcome.verdict.lost),
    "redrive_past_the_spool": Case(OUTAGE, lambda outcome: outcome.verdict.misordered),
    "reorder_on_drain": Case(OUTAGE, lambda outcome: outcome.verdict.misordered),
    "unsealed_spool": Case(OUTAGE, lambda outcome: outcome.leaks),
    "forget_the_log": Case(RESTARTED, lambda outcome: outcome.verdict.unexplained),
    "dedupe_on_seen": Case(NO_SPOOL, lambda outcome: outcome.verdict.lost),
}


@pytest.mark.parametrize("name", SABOTAGES)
async def test_a_promise_that_is_broken_on_purpose_is_found(stage: Stage, seed: int, name: str) -> None:
    row = replace(CASES[name].row, command=[sys.executable, "-m", "tests.faults.sabotage", name, "serve"])

    assert CASES[name].found(await play(row, stage, seed=seed, tier=TIER))


@pytest.mark.parametrize("row", [OUTAGE, NO_SPOOL], ids=["spool", "no spool"])
async def test_without_sabotage_the_same_bridge_keeps_them_all(stage: Stage, seed: int, row: Row) -> None:
    """Or the failures above might have another reason."""
    outcome = await play(row, stage, seed=seed, tier=TIER)

    assert outcome.broken == []
