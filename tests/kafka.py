"""Helpers of tests on a real broker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.client import ConnectionGroup  # noqa: TID251 - the tests reset its connections
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]  # its stub does not say what it hands on
from prometheus_client import CollectorRegistry

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.producer import KafkaProducer, Patience
from bridge.kafka.reader import open_reader
from bridge.runtime.metrics import IngressMetrics
from tests.cluster import Cluster

# Time limit of expected events; generous, since the machine may be busy.
HANG_S = 60.0
_ANSWER_S = 30.0


def connection_to(brokers: str | KafkaConnection) -> KafkaConnection:
    return brokers if isinstance(brokers, KafkaConnection) else KafkaConnection(brokers)


def a_producer(
    brokers: str | KafkaConnection,
    *topics: str,
    partitions: int = 12,
    patience: Patience | None = None,
    now: Callable[[], float] = time.time,
) -> KafkaProducer:
    return KafkaProducer(
        connection=connection_to(brokers),
        topics=topics,
        partitions=partitions,
        metrics=IngressMetrics(CollectorRegistry()),
        patience=patience or Patience(),
        now=now,
    )


@asynccontextmanager
async def running(producer: KafkaProducer) -> AsyncIterator[KafkaProducer]:
    stop = asyncio.Event()
    task = asyncio.create_task(producer.run(stop))
    try:
        yield producer
    finally:
        stop.set()
        await task


@asynccontextmanager
async def ready_producer(
    brokers: str | KafkaConnection, *topics: str, partitions: int = 12
) -> AsyncIterator[KafkaProducer]:
    """Run a producer and wait until it is ready and knows its topics."""
    async with running(a_producer(brokers, *topics, partitions=partitions)) as producer:
        await until(lambda: producer.ready and not producer.wrong_counts)
        yield producer


async def until(condition: Callable[[], object]) -> None:
    """Poll until `condition` is true, where there is no event to wait for."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - as the docstring says
            await asyncio.sleep(0.02)


async def read_all(brokers: str | KafkaConnection, topic: str) -> list[ConsumedRecord]:
    async with open_reader(connection_to(brokers), [topic], from_beginning=True) as reader:
        return [record async for record in reader.until_end()]


def limit_messages(bootstrap_servers: str, topic: str, bytes_max: int) -> None:
    configure_topic(bootstrap_servers, topic, "max.message.bytes", str(bytes_max))


def configure_topic(bootstrap_servers: str, topic: str, setting: str, value: str) -> None:
    """Change one setting of a topic, and wait until the broker applies it, which is after its response."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    resource.add_incremental_config(ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result(_ANSWER_S)
    deadline = time.monotonic() + HANG_S
    while admin.describe_configs([resource])[resource].result(_ANSWER_S)[setting].value != value:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@asynccontextmanager
async def paused(cluster: Cluster) -> AsyncIterator[None]:
    """Freeze the broker for the block: its connections stay open but silent."""
    await asyncio.to_thread(cluster.pause_broker, 1)
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.resume_broker, 1)


@asynccontextmanager
async def killed(cluster: Cluster, number: int = 1) -> AsyncIterator[None]:
    """Kill a broker, and start it again after the block."""
    await asyncio.to_thread(cluster.kill_broker, number)
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.start_broker, number)


class Reset:
    """A recently reset connection: uvloop raises the wrong kind of error before aiokafka notices."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, sent: bytes) -> None:
        del sent
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def reset_connections(client: Any) -> None:
    """Let the connections of aiokafka's inner client refuse writes, except that to a group's coordinator."""
    for (_, purpose), connection in client._conns.items():
        if purpose == ConnectionGroup.DEFAULT:
            connection._writer = Reset(connection._writer)
