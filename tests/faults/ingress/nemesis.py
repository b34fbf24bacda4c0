"""Row X1: random faults, one or two at a time, for a chosen time."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from tests.faults.ingress.clock import Clock
from tests.faults.ingress.row import Row
from tests.faults.ingress.rows_clocks import give_clock, step
from tests.faults.ingress.rows_paths import DEAF, SLOW
from tests.faults.ingress.scene import Scene

Fault = Callable[[Scene], Awaitable[None]]

LENGTH_VARIABLE = "DRX_FAULTS_NEMESIS_S"
# In the short tier; all other times are in proportion.
LENGTH_S = 20.0
HELD_S = (0.5, 6.0)
CALM_S = (0.0, 3.0)
JUMP_S = 600.0


async def kill_a_broker(scene: Scene) -> None:
    await asyncio.to_thread(scene.brokers.kill_broker, scene.rng.choice(sorted(scene.brokers.brokers)))


async def freeze_all(scene: Scene) -> None:
    scene.brokers.pause()


async def slow_down(scene: Scene) -> None:
    scene.make_trouble(to_broker=SLOW)


async def cut_off(scene: Scene) -> None:
    scene.make_trouble(to_client=DEAF)


async def kill_ingress(scene: Scene) -> None:
    await scene.cut_short()


async def jump(scene: Scene, clock: Clock) -> None:
    step(scene, clock, scene.rng.uniform(-JUMP_S, JUMP_S))


FAULTS: Mapping[str, Fault] = {
    "B1": kill_a_broker,
    "B6": freeze_all,
    "B7": slow_down,
    "B8": cut_off,
    "P1": kill_ingress,
}


async def nemesis(scene: Scene) -> None:
    """Inject one or two faults for a while, heal, and repeat; the keys may be rotated in between."""
    length_s = float(os.environ.get(LENGTH_VARIABLE) or LENGTH_S * scene.tier.factor)
    faults: dict[str, Fault] = {**FAULTS, "T1": partial(jump, clock=await give_clock(scene))}
    ends_at = asyncio.get_running_loop().time() + length_s
    async with scene.load.poisson(scene.tier.rate):
        while asyncio.get_running_loop().time() < ends_at:
            for name in scene.rng.sample(sorted(faults), scene.rng.choice([1, 1, 2])):
                await faults[name](scene)
                await asyncio.sleep(scene.rng.uniform(*HELD_S))
            await scene.heal()
            if scene.rng.random() < 0.25:
                await scene.rotate()
            await asyncio.sleep(scene.rng.uniform(*CALM_S))


ROWS = (Row("X1", "all of it at random: B1, B6, B7, B8, P1, S1, T1", nemesis, detour=True),)
