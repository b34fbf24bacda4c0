"""The embedded broker does what tests and `dev` rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: TID251 - the broker itself is under test

from bridge.dev.kafka import known_brokers
from tests.cluster import Cluster, Topics

pytestmark = pytest.mark.kafka


async def write(bootstrap_servers: str, topic: str, value: bytes, *, partition: int = 0) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value, partition=partition)


async def read_one(bootstrap_servers: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, group_id=uuid4().hex, auto_offset_reset="earliest"
    )
    async with asyncio.timeout(60), consumer:
        record = await consumer.getone()
        assert isinstance(record.value, bytes)
        return record.value


async def test_a_record_written_is_read_by_a_group(cluster: Cluster, topics: Topics) -> None:
    topic = await asyncio.to_thread(topics.fresh)

    await write(cluster.bootstrap_servers, topic, b"one")

    assert await read_one(cluster.bootstrap_servers, topic) == b"one"


async def test_a_killed_broker_comes_back_on_its_port_with_its_records(cluster: Cluster, topics: Topics) -> None:
    topic = await asyncio.to_thread(topics.fresh)
    await write(cluster.bootstrap_servers, topic, b"kept")

    await asyncio.to_thread(cluster.kill_broker, 1)
    assert await asyncio.to_thread(known_brokers, cluster.bootstrap_servers) == set()
    await asyncio.to_thread(cluster.start_broker, 1)

    assert await read_one(cluster.bootstrap_servers, topic) == b"kept"


async def test_three_brokers_take_records_without_any_one_of_them(make_cluster: Callable[[int], Cluster]) -> None:
    three = await asyncio.to_thread(make_cluster, 3)
    topic = await asyncio.to_thread(Topics(three.bootstrap_servers).fresh, partitions=3)

    await asyncio.to_thread(three.kill_broker, 2)
    for partition in range(3):
        await write(three.bootstrap_servers, topic, b"without 2", partition=partition)
    await asyncio.to_thread(three.start_broker, 2)

    known = [await asyncio.to_thread(known_brokers, address) for address in three.bootstrap_servers.split(",")]
    assert known == [{1, 2, 3}] * 3
    await asyncio.to_thread(three.stop)
