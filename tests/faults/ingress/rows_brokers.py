"""Rows in which brokers die, freeze or change their part."""

from __future__ import annotations

import asyncio

from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

# Deliveries a second; the matrix says 200, here a machine with two busy cores also runs everything else.
RATE = 100.0


async def leader_dies(scene: Scene) -> None:
    """Chase the leader: kill whoever leads most, once or several times."""
    async with scene.load.poisson(RATE):
        for _ in range(max(1, round(scene.factor))):
            await asyncio.sleep(1)
            victim = await asyncio.to_thread(scene.brokers.busiest, scene.topic)
            await asyncio.to_thread(scene.brokers.kill_broker, victim)
            await asyncio.sleep(5)
            await scene.heal()


ROWS = (Row("B1", "leader broker killed, again and again", leader_dies),)
