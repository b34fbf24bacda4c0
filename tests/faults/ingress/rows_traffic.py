"""Rows in which nothing breaks, but senders are a nuisance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.faults.ingress.ledger import Delivery
from tests.faults.ingress.load import PATIENCE_S
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

COPIES = 10
SENDERS = 16


async def tenfold(scene: Scene) -> None:
    """Make every delivery ten times, all of them shuffled."""
    told = [scene.load.prescriptions.new() for _ in range(scene.tier.times(25))]
    deliveries = [delivery for prescription in told for delivery in prescription.deliveries] * COPIES
    scene.rng.shuffle(deliveries)
    left = iter(deliveries)

    async def send() -> None:
        for delivery in left:
            await scene.load.deliver(delivery, stubborn=True)

    await _all_of(scene, send)


async def conflicting(scene: Scene) -> None:
    """Send another body under the id of one that was taken, and two bodies under one id at the same time."""
    told = [scene.load.prescriptions.new() for _ in range(scene.tier.times(25))]
    left = iter(told)

    async def send() -> None:
        for prescription in left:
            for delivery in prescription.deliveries:
                other = scene.load.prescriptions.another(delivery, id=delivery.id, account_id="acct_other")
                await _send_both(scene, delivery, other)

    await _all_of(scene, send)


async def _send_both(scene: Scene, delivery: Delivery, other: Delivery) -> None:
    if scene.rng.random() < 0.5:
        await scene.load.deliver(delivery, stubborn=True)
        await scene.load.deliver(other, stubborn=True, kind="conflict")
    else:
        await asyncio.gather(
            scene.load.deliver(delivery, stubborn=True), scene.load.deliver(other, stubborn=True, kind="rival")
        )


async def _all_of(scene: Scene, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(PATIENCE_S * scene.tier.factor), scene.load.open(), asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(send())


ROWS = (
    Row("K1", "every delivery ten times, shuffled", tenfold),
    Row("K2", "another body under the same id", conflicting),
)
