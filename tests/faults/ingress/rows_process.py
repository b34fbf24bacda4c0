"""Rows in which the ingress itself dies."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene


async def killed(scene: Scene) -> None:
    """Kill it at any moment, now and then before it is ready again."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(6)):
            if scene.rng.random() < 0.75:
                await asyncio.to_thread(scene.ingress.ready)
            await asyncio.sleep(scene.rng.uniform(0, 1.5))
            await scene.cut_short()
        await scene.heal()


async def grace_expires(scene: Scene) -> None:
    """Stop it while the brokers are frozen, and kill it when it has had some time."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            for number in scene.brokers.brokers:
                scene.brokers.pause_broker(number)
            await asyncio.sleep(1)
            scene.ingress.send_signal(signal.SIGTERM)
            await asyncio.sleep(scene.rng.uniform(0, 2))
            await scene.cut_short()
            await scene.heal()


ROWS = (
    Row("P1", "ingress killed at random moments", killed),
    Row("P3", "ingress killed amid its stop, brokers frozen", grace_expires),
)
