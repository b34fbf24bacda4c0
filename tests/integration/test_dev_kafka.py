"""The embedded broker does what tests and `dev` rely on."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: TID251 - the broker itself is under test

from bridge.dev.kafka import known_brokers
from tests.cluster import Cluster, Topics

pytestmark = pytest.mark.kafka


async def write(bootstrap_servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value, partition=0)


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
