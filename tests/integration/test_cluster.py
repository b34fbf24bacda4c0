"""Either kind of cluster keeps the promises of `tests.cluster.Cluster`, on which the fault tests stand.

Three of its brokers also show what a 200 of the ingress says.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: TID251 - the brokers themselves are under test
from confluent_kafka.admin import AdminClient

from bridge.dev.kafka import known_brokers
from tests.builders import a_body
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, deliver

pytestmark = pytest.mark.kafka

# The last resort against a hang: three brokers on two busy cores.
_PATIENCE_S = 60


@pytest.fixture(scope="module")
def trio(make_cluster: Callable[[int], Cluster]) -> Iterator[Cluster]:
    """Three brokers; who kills one starts it again."""
    cluster = make_cluster(3)
    yield cluster
    cluster.stop()


def a_producer(cluster: Cluster) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, acks="all", enable_idempotence=True)


async def known(cluster: Cluster) -> list[set[int]]:
    """Brokers that each of them knows."""
    return [await asyncio.to_thread(known_brokers, address) for address in cluster.bootstrap_servers.split(",")]


async def read(cluster: Cluster, topic: str, *, count: int) -> list[bytes]:
    """The first records, by partition and offset."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=cluster.bootstrap_servers, auto_offset_reset="earliest")
    async with consumer:
        records = [await consumer.getone() for _ in range(count)]
    return [each.value for each in sorted(records, key=lambda each: (each.partition, each.offset))]


async def test_each_of_three_brokers_is_reached_and_knows_the_others(trio: Cluster) -> None:
    assert await known(trio) == [{1, 2, 3}] * 3


async def test_a_killed_one_of_three_loses_nothing_and_returns_to_its_place(trio: Cluster) -> None:
    topic = await asyncio.to_thread(Topics(trio.bootstrap_servers).fresh, partitions=3)
    first = trio.bootstrap_servers.split(",")[0]

    async with asyncio.timeout(_PATIENCE_S), a_producer(trio) as producer:
        await producer.send_and_wait(topic, b"before", partition=0)
        await asyncio.to_thread(trio.kill_broker, 1)
        assert await asyncio.to_thread(known_brokers, first) == set()
        for partition in range(3):
            await producer.send_and_wait(topic, b"meanwhile", partition=partition)
        await asyncio.to_thread(trio.start_broker, 1)
        await producer.send_and_wait(topic, b"after", partition=0)

        assert await known(trio) == [{1, 2, 3}] * 3
        assert await read(trio, topic, count=5) == [b"before", b"meanwhile", b"after", b"meanwhile", b"meanwhile"]


def leader_of(cluster: Cluster, topic: str, partition: int) -> int:
    """The broker that leads it."""
    found = AdminClient({"bootstrap.servers": cluster.bootstrap_servers}).list_topics(topic, timeout=_PATIENCE_S)
    return int(found.topics[topic].partitions[partition].leader)


async def test_a_delivery_is_accepted_only_when_all_in_sync_replicas_have_it(trio: Cluster, tmp_path: Path) -> None:
    """Of three controllers one alone takes no follower out of the replicas in sync, however long they are frozen."""
    await asyncio.to_thread(Topics(trio.bootstrap_servers).standard)
    with IngressProcess(tmp_path, trio.bootstrap_servers) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with asyncio.timeout(_PATIENCE_S), aiohttp.ClientSession() as session:

            async def sent(number: int) -> str:
                reply = await deliver(session, ingress, a_body(), webhook_id=f"evt_{number}")
                return str(reply.json["outcome"])

            # Until the topics were read, the first ones are spooled whatever Kafka does.
            numbers = itertools.count()
            while await sent(next(numbers)) != "accepted":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            record, *_ = await ingress.records()
            leader = await asyncio.to_thread(leader_of, trio, record.topic, record.partition)
            followers = {1, 2, 3} - {leader}
            for follower in followers:
                trio.pause_broker(follower)
            number = next(numbers)
            alone = await sent(number)
            for follower in followers:
                trio.resume_broker(follower)
            while await sent(number) != "duplicate":  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)

    assert alone == "spooled"


async def test_a_paused_broker_answers_nothing_and_goes_on_when_resumed(cluster: Cluster, topics: Topics) -> None:
    """A frozen broker is worse than a dead one: its connections stay open."""
    topic = await asyncio.to_thread(topics.fresh, partitions=1)

    async with asyncio.timeout(_PATIENCE_S), a_producer(cluster) as producer:
        await producer.send_and_wait(topic, b"before")
        await asyncio.to_thread(cluster.pause_broker, 1)
        try:
            waiting = asyncio.create_task(producer.send_and_wait(topic, b"meanwhile"))
            assert await asyncio.to_thread(known_brokers, cluster.bootstrap_servers) == set()
            assert not waiting.done()
        finally:
            await asyncio.to_thread(cluster.resume_broker, 1)
        await waiting

        assert await read(cluster, topic, count=2) == [b"before", b"meanwhile"]
