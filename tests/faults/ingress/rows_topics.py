import asyncio

from bridge.dev.kafka import create_topics
from tests.faults.ingress.row import PARTITIONS, Row
from tests.faults.ingress.scene import Scene

# Between the smallest and the largest record, so that only some pass.
NARROW_BYTES, WIDE_BYTES = 1_500, 1_048_588


async def widened(scene: Scene) -> None:
    """Add partitions to the topic: no prescription may move to one of them."""
    async with scene.load.poisson(scene.tier.rate):
        await asyncio.to_thread(scene.brokers.widen, scene.topic, PARTITIONS + 3)
        await scene.lasting(6)
        await scene.heal()


async def narrowed(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        await asyncio.to_thread(scene.brokers.limit, scene.topic, NARROW_BYTES)
        await scene.lasting(6)
        await asyncio.to_thread(scene.brokers.limit, scene.topic, WIDE_BYTES)
        await scene.heal()


async def deleted(scene: Scene) -> None:
    """Delete the topic; later deliveries are not lost, and only an operator creates it again."""
    scene.log_before = await scene.log()
    await asyncio.to_thread(scene.brokers.delete, scene.topic)
    async with scene.load.poisson(scene.tier.rate):
        await scene.lasting(6)
        assert not await asyncio.to_thread(scene.brokers.has, scene.topic), "somebody has made the topic again"
        await asyncio.to_thread(create_topics, scene.brokers.bootstrap_servers, {scene.topic: PARTITIONS})
        await scene.heal()


ROWS = (
    Row("B11-partitions", "three partitions added to the topic", widened),
    Row("B11-size", "max.message.bytes lowered below some of the records, then raised", narrowed),
    # No read model: a recreated topic stops it, as intended.
    Row("B11-deleted", "topic deleted, and made again later", deleted, effects=False),
)
