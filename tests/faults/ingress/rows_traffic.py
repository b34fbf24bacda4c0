"""Rows in which nothing breaks, but senders are a nuisance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

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


async def _all_of(scene: Scene, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(PATIENCE_S * scene.tier.factor), scene.load.open(), asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(send())


ROWS = (Row("K1", "every delivery ten times, shuffled", tenfold),)
