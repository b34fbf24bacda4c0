import asyncio
import signal
from collections.abc import Callable
from functools import partial

from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene


async def one_dies(scene: Scene, *, victim: Callable[[Scene], int]) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            await asyncio.sleep(1)
            await asyncio.to_thread(scene.brokers.kill_broker, await asyncio.to_thread(victim, scene))
            await asyncio.sleep(4)
            await scene.heal()


async def leaders_change(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            leader = await asyncio.to_thread(scene.brokers.busiest, scene.topic)
            await asyncio.to_thread(scene.brokers.stop_broker, leader)
            await asyncio.sleep(1)
            await scene.heal()
            await asyncio.to_thread(scene.brokers.prefer_first, scene.topic)
            await asyncio.sleep(2)


async def too_few_in_sync(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for number in scene.rng.sample(sorted(scene.brokers.brokers), 2):
            await asyncio.to_thread(scene.brokers.kill_broker, number)
        await scene.lasting(8)
        await scene.heal()


async def all_dead(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        await asyncio.to_thread(scene.brokers.kill)
        await scene.lasting(8)
        assert await scene.ingress.end(signal.SIGTERM) == 0
        scene.ingress.start()
        await asyncio.to_thread(scene.ingress.live)
        await scene.lasting(2)
        await scene.heal()


async def all_frozen(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        scene.brokers.pause()
        await scene.lasting(10)
        await scene.heal()


ROWS = (
    Row("B1", "leader broker killed", partial(one_dies, victim=lambda scene: scene.brokers.busiest(scene.topic))),
    Row("B2", "leader broker stopped in order; leaders elected anew", leaders_change),
    Row("B3", "controller killed", partial(one_dies, victim=lambda scene: scene.brokers.controller())),
    Row("B4", "two of three brokers killed", too_few_in_sync),
    Row("B5", "all brokers killed; the ingress stopped and started meanwhile", all_dead),
    Row("B6", "all brokers frozen", all_frozen),
)
