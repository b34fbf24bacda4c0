"""Either kind of cluster keeps the promises of `tests.cluster.Cluster`, on which the fault tests stand.

Three of its brokers also show what a 200 of the ingress says.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import aiohttp
import pytest
from confluent_kafka.admin import AdminClient

from tests.builders import a_body
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, deliver

pytestmark = pytest.mark.kafka

# The last resort against a hang: three brokers on two busy cores.
_PATIENCE_S = 60


def leader_of(cluster: Cluster, topic: str, partition: int) -> int:
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
