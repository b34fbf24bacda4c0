"""Rows in which the ingress itself dies."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from bridge.runtime import failpoints
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

DIRECT = (
    failpoints.BEFORE_VERIFY,
    failpoints.AFTER_VERIFY,
    failpoints.AFTER_PRODUCE,
    failpoints.BEFORE_ANSWER,
)
SPOOLING = (failpoints.BEFORE_FSYNC, failpoints.AFTER_FSYNC)
DRAINING = (failpoints.DRAINED_BEFORE_DROP, failpoints.BEFORE_POSITIONS)


async def killed(scene: Scene) -> None:
    """Kill it at any moment, now and then before it is ready again."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(4)):
            if scene.rng.random() < 0.75:
                await asyncio.to_thread(scene.ingress.ready)
            await asyncio.sleep(scene.rng.uniform(0, 1.5))
            await scene.cut_short()
        await scene.heal()


async def killed_at_points(scene: Scene) -> None:
    """Kill it at each named point: those of a direct write, then those of the spool, then those of its drain."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            for point in DIRECT:
                await _die(scene, point, nth=scene.rng.randrange(1, 30))
            scene.brokers.pause()
            for point in SPOOLING:
                await _die(scene, point, nth=scene.rng.randrange(1, 10))
            for point in DRAINING:
                scene.brokers.pause()
                scene.ingress.start()
                await asyncio.to_thread(scene.ingress.ready)
                await asyncio.sleep(1)
                await _die(scene, point, nth=scene.rng.randrange(1, 3), then=scene.brokers.resume)
            scene.ingress.start()
            await scene.heal()


async def _die(scene: Scene, point: str, *, nth: int, then: Callable[[], None] = lambda: None) -> None:
    """Have a life that ends at the nth visit of a point, once `then` was done."""
    if scene.ingress.alive:
        await asyncio.to_thread(scene.ingress.kill)
    scene.ingress.start(**{failpoints.VARIABLE: f"{point}:kill@{nth}"})
    then()
    assert await asyncio.to_thread(scene.ingress.ended) == -signal.SIGKILL, scene.ingress.output()


async def grace_expires(scene: Scene) -> None:
    """Stop it while the brokers are frozen, and kill it when it has had some time."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            scene.brokers.pause()
            await asyncio.sleep(1)
            scene.ingress.send_signal(signal.SIGTERM)
            await asyncio.sleep(scene.rng.uniform(0, 2))
            await scene.cut_short()
            await scene.heal()


ROWS = (
    Row("P1", "ingress killed at random moments", killed),
    Row("P1-points", "ingress killed at each of eight points", killed_at_points),
    Row("P3", "ingress killed amid its stop, brokers frozen", grace_expires),
)
