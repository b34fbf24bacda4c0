import asyncio

from tests.faults.ingress.proxy import Trouble
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

# B7: 400 ms and 256 kbit/s. B9: every 50 KB.
SLOW = Trouble(delay_s=0.4, rate_bytes_s=32_000, slice_bytes=4_096)
DEAF = Trouble(deaf=True)
GARBLED = Trouble(garbled=True)
FRAGILE = Trouble(slice_bytes=700, reset_after_bytes=50_000)


async def slow(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        scene.proxies[await asyncio.to_thread(scene.brokers.busiest, scene.topic)].make_trouble(to_broker=SLOW)
        await scene.lasting(5)
        scene.make_trouble(to_broker=SLOW)
        await scene.lasting(5)
        await scene.heal()


async def fragile(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        scene.make_trouble(to_broker=FRAGILE)
        await scene.lasting(10)
        await scene.heal()
    assert sum(proxy.resets for proxy in scene.proxies.values()) > 0, "nothing was reset"


async def one_way(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for sides in ({"to_client": DEAF}, {"to_broker": DEAF}):
            scene.proxies[await asyncio.to_thread(scene.brokers.busiest, scene.topic)].make_trouble(**sides)
            await scene.lasting(5)
            await scene.heal()


async def garbled(scene: Scene) -> None:
    """Let one broker send garbage, then all; new connections also receive only garbage."""
    async with scene.load.poisson(scene.tier.rate):
        scene.proxies[await asyncio.to_thread(scene.brokers.busiest, scene.topic)].make_trouble(to_client=GARBLED)
        await scene.lasting(4)
        scene.make_trouble(to_client=GARBLED)
        for proxy in scene.proxies.values():
            proxy.reset_all()
        await scene.lasting(4)
        assert scene.ingress.alive
        await scene.heal()


ROWS = (
    Row("B7", "brokers slow: +400 ms, 256 kbit/s", slow, detour=True),
    Row("B8", "one broker cut off in one direction, then in the other", one_way, detour=True, short=False),
    Row("B9", "connections sliced, and reset every 50 KB", fragile, detour=True),
    Row("B12", "one broker answers garbage, then all", garbled, detour=True),
)
