import asyncio
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from bridge.runtime import failpoints
from bridge.spool.segment import SUFFIX
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import DRAINED_S, Scene

# In the order in which a delivery reaches them.
DIRECT = ("before_verify", "after_verify", "after_produce", "before_answer")
SPOOLING = ("before_fsync", "after_fsync")
DRAINING = ("drained_before_drop", "before_positions")
# The first start, before it has generated a spool key.
STARTING = ("before_key",)
# Deliveries that are repeated after a crash, as by senders that lost their records.
RESENT = 30
POINTS = (*DIRECT, *SPOOLING, *DRAINING, *STARTING)


async def killed(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(4)):
            if scene.rng.random() < 0.75:
                await asyncio.to_thread(scene.ingress.ready)
            await asyncio.sleep(scene.rng.uniform(0, 1.5))
            await scene.kill()
            await resend(scene)


async def killed_at_points(scene: Scene) -> None:
    await _die_at(scene, "before_key")
    await resend(scene)
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            for point in (*DIRECT, *SPOOLING, *DRAINING):
                await _die_at(scene, point)
                await resend(scene)


async def killed_at_one(scene: Scene, *, point: str) -> None:
    async with nullcontext() if point in STARTING else scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(3)):
            await _die_at(scene, point)
            await resend(scene)


async def _die_at(scene: Scene, point: str) -> None:
    if point in DIRECT:
        # A start drains the spool first, so that few writes are direct on a machine that is slow to drain it.
        await _die(scene, point, nth=scene.rng.randrange(1, 5 if point == "after_produce" else 30))
    elif point in SPOOLING:
        scene.brokers.pause()
        await _die(scene, point, nth=scene.rng.randrange(1, 10))
        scene.brokers.resume()
    elif point in DRAINING:
        scene.brokers.pause()
        await _alive(scene)
        await asyncio.sleep(1)
        await _die(scene, point, nth=scene.rng.randrange(1, 3), then=scene.brokers.resume)
    else:
        # Without load: while anything is sealed no key is made, since one must be missing. A small segment that is
        # written to outlives its records; the next start removes it.
        spool = scene.ingress.secrets_dir.parent / "spool"
        while scene.ingress.alive or any(spool.glob(f"*{SUFFIX}")):
            await _alive(scene)
            await scene.settled(DRAINED_S)
            await _kill(scene)
        await asyncio.to_thread(shutil.rmtree, spool / "keys")
        await _die(scene, point, nth=1)


async def _die(scene: Scene, point: str, *, nth: int, then: Callable[[], None] = lambda: None) -> None:
    await _kill(scene)
    scene.ingress.start(**{failpoints.VARIABLE: f"{point}:kill@{nth}"})
    then()
    assert await asyncio.to_thread(scene.ingress.ended) == -signal.SIGKILL, scene.ingress.output()
    scene.died()


async def resend(scene: Scene) -> None:
    """Restart it, and repeat the deliveries of its last run before it has read the records of that run."""
    taken = {each.delivery.id: each.delivery for each in scene.ledger.of("genuine") if each.outcome == "accepted"}
    again = [delivery for name, delivery in taken.items() if name not in scene.unsettled][-RESENT:]
    scene.ingress.start()
    async with scene.load.open():
        await asyncio.gather(*(scene.load.deliver(each, stubborn=True, kind="duplicate") for each in again))


async def _alive(scene: Scene) -> None:
    if not scene.ingress.alive:
        scene.ingress.start()
    await asyncio.to_thread(scene.ingress.ready)


async def _kill(scene: Scene) -> None:
    if scene.ingress.alive:
        await scene.kill()


async def grace_expires(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            scene.brokers.pause()
            await asyncio.sleep(1)
            scene.ingress.send_signal(signal.SIGTERM)
            await asyncio.sleep(scene.rng.uniform(0, 2))
            await scene.cut_short()
            await scene.heal()


ROWS = (
    Row("P1", "ingress killed at random moments", killed, once=True),
    Row("P1-points", "ingress killed at each of nine points", killed_at_points, once=True),
    *(
        Row(f"P1-{point}", "ingress killed at this point", partial(killed_at_one, point=point), short=False, once=True)
        for point in POINTS
    ),
    Row("P3", "ingress killed amid its stop, brokers frozen", grace_expires, once=True),
)
