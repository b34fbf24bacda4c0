"""Three brokers: the meaning of a 200, and a partition without a leader does not block others."""

import asyncio
import itertools
from pathlib import Path
from typing import Any, cast

import aiohttp
import aiokafka.producer.sender  # noqa: TID251 - to count its requests
import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub does not say what it hands on

from bridge.kafka.known_ids_reader import KnownIdsReader
from bridge.kafka.record import Record
from tests.builders import a_body
from tests.cluster import EmbeddedCluster, Topics
from tests.faults.ingress.scene import Stage
from tests.integration.ingress_process import IngressProcess, deliver
from tests.integration.test_known_ids_reader import Memory, a_record, following
from tests.kafka import HANG_S, killed, ready_producer, until
from tests.simulation import kafka
from tests.simulation.world import World
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

# The last resort against a hang: three brokers on two busy cores.
_PATIENCE_S = 60


def leader_of(cluster: EmbeddedCluster, topic: str, partition: int) -> int:
    found = AdminClient({"bootstrap.servers": cluster.bootstrap_servers}).list_topics(topic, timeout=_PATIENCE_S)
    return int(found.topics[topic].partitions[partition].leader)


async def test_a_delivery_is_accepted_only_when_all_in_sync_replicas_have_it(stage: Stage, tmp_path: Path) -> None:
    """Of three controllers one alone takes no follower out of the replicas in sync, however long they are frozen."""
    trio = stage.brokers
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
            followers = {1, 2, 3} - {await asyncio.to_thread(leader_of, trio, record.topic, record.partition)}
            for follower in followers:
                trio.pause_broker(follower)
            number = next(numbers)
            alone = await sent(number)
            for follower in followers:
                trio.resume_broker(follower)
            while await sent(number) != "duplicate":  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)

    assert alone == "spooled"


@pytest.mark.parametrize("kind", ["simulated", "kafka"])
async def test_a_batch_that_is_sent_again_is_acknowledged_by_no_leader_alone(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader has it since the first request; neither that nor the second may be answered."""
    requests: list[object] = []
    sender: Any = aiokafka.producer.sender.Sender if kind == "kafka" else kafka.Sender
    send = sender._send_produce_req

    def counted(self: object, *args: object) -> object:
        requests.append(args)
        return send(self, *args)

    monkeypatch.setattr(sender, "_send_produce_req", counted)
    topic, servers = "sent-again", cast("Any", None)
    brokers: Any = request.getfixturevalue("stage").brokers if kind == "kafka" else None
    if brokers is None:
        world = World(0, cast("Any", asyncio.get_running_loop()))
        servers = kafka.Connection(kafka=kafka.Kafka(world, {topic: 1}), host="test")
        servers.kafka.ack_s = 1e6
    else:
        servers = brokers.bootstrap_servers
        placed = NewTopic(topic, num_partitions=1, replica_assignment=[[1, 2, 3]])
        admin = AdminClient({"bootstrap.servers": servers})
        await asyncio.to_thread(admin.create_topics([placed])[topic].result, HANG_S)
    async with ready_producer(servers, topic, partitions=1) as producer:
        for follower in (2, 3) if brokers else ():
            brokers.pause_broker(follower)
        record = Record(topic, 0, b"rx_1", b"a", [], 1_772_366_400_000)
        writing = asyncio.create_task(producer.write(topic, 0, [record]))
        await until(lambda: len(requests) == 3 or writing.done())
        is_acknowledged = writing.done() and writing.exception() is None
        for follower in (2, 3) if brokers else ():
            brokers.resume_broker(follower)
        writing.cancel()

    assert (len(requests) >= 2, is_acknowledged) == (True, False)


async def test_a_partition_without_a_leader_holds_up_no_other(stage: Stage) -> None:
    servers = stage.brokers.bootstrap_servers
    await asyncio.to_thread(stage.brokers.heal)  # a test before may have paused some
    admin = AdminClient({"bootstrap.servers": servers})
    topic = "without-leader"
    placed = NewTopic(topic, num_partitions=3, replica_assignment=[[1], [2], [3]])
    await asyncio.to_thread(admin.create_topics([placed])[topic].result, HANG_S)
    memory = Memory()

    async with following(servers, [topic], memory) as follower:
        await until(lambda: follower.ready)
        async with killed(stage.brokers, 3):
            fill(servers, [a_record(topic, "evt_1", partition=0), a_record(topic, "evt_2", partition=1)])
            await until(lambda: memory.ids.total() == 2)
            await until(lambda: followed(follower, topic) == {0, 1})
        fill(servers, [a_record(topic, "evt_3", partition=2)])
        await until(lambda: memory.ids.total() == 3)
        await until(lambda: follower.ready)


def followed(follower: KnownIdsReader, topic: str) -> set[int]:
    tail = follower._topics[topic].tail
    return set() if tail is None else set(tail.ends)
