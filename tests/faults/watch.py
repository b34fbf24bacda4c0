"""Watches the offsets of a group: neither those in the database nor those in Kafka may go back."""

import asyncio
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import asyncpg  # noqa: TID251 - looks at what was committed
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.scene import Scene

# As often as it is cheap: most steps back would be undone by the next commit.
LOOK_S = 0.05
ANSWER_S = 30.0
_PROGRESS = "select part, next_offset from drx_consumer.progress where grp = $1 and next_offset is not null"


class Offsets:
    """The latest offset of each partition in both places."""

    def __init__(self) -> None:
        self.answered: set[str] = set()  # the places that have returned an offset
        # Must be empty: place and partition of offsets that went back, with both values.
        self.steps_back: list[tuple[str, int, int, int]] = []
        self._latest: dict[tuple[str, int], int] = {}

    def see(self, where: str, offsets: Iterable[tuple[int, int]]) -> None:
        self.answered.add(where)
        for partition, offset in offsets:
            before = self._latest.get((where, partition), offset)
            if offset < before:
                self.steps_back.append((where, partition, before, offset))
            self._latest[where, partition] = offset


@contextmanager
def watched(scene: Scene) -> Iterator[Offsets]:
    """Watch until the block ends, also before the scene's first process has created its tables."""
    offsets, stop = Offsets(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(asyncio.run, _look(scene, offsets, stop))
        try:
            yield offsets
        finally:
            stop.set()
        looking.result()
    assert offsets.answered == {"postgres", "kafka"}


async def _look(scene: Scene, offsets: Offsets, stop: threading.Event) -> None:
    connection = await asyncpg.connect(scene.dsn)
    # It never joins the group, so it does not disturb it.
    consumer = Consumer({"bootstrap.servers": scene.ground.bootstrap_servers, "group.id": scene.group})
    places = [TopicPartition(scene.topic, number) for number in range(scene.partitions)]
    try:
        while not stop.wait(LOOK_S):
            # Both may fail at first: the first process creates the tables, and the group its coordinator.
            with suppress(asyncpg.UndefinedTableError):
                offsets.see("postgres", await connection.fetch(_PROGRESS, scene.group))
            with suppress(KafkaException):
                found = consumer.committed(places, timeout=ANSWER_S)
                offsets.see("kafka", [(place.partition, place.offset) for place in found if place.offset >= 0])
    finally:
        consumer.close()
        await connection.close()
