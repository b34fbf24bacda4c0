"""The few questions the embedded stack has for its brokers, asked from code that does not run a loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient  # noqa: TID251 - the stack asks one of its own brokers

from bridge.kafka.admin import FOREVER_MS, UNRECOGNIZED_RETENTION_MS, TopicSpec, open_admin
from bridge.kafka.connection import CLIENT_FAILURES, Connection
from bridge.kafka.routing import UNRECOGNIZED_TOPIC

T = TypeVar("T")

# A loopback answer takes milliseconds; a broker that is still starting accepts the connection and says nothing.
_PROBE_TIMEOUT_S = 3.0


def known_brokers(address: str) -> set[int]:
    """Ids of the live brokers as the one at `address` knows them; none while it does not answer."""
    host, _, port = address.rpartition(":")
    try:
        # A refused connection is cheap to find out here; aiokafka would log an error each time.
        socket.create_connection((host, int(port)), timeout=_PROBE_TIMEOUT_S).close()
        return _run(_known_brokers(address))
    except CLIENT_FAILURES:
        return set()


def create_topics(bootstrap_servers: str, topics: Mapping[str, int]) -> None:
    """Create those of `topics` (partitions by name) that are missing, on as many brokers as there are, three at most.

    Raises:
        AdminError: The brokers refused, or did not answer in time.
    """
    _run(_create_topics(bootstrap_servers, topics))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a loop of its own: the caller's thread may be running another one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@asynccontextmanager
async def _client(bootstrap_servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def _known_brokers(address: str) -> set[int]:
    async with asyncio.timeout(_PROBE_TIMEOUT_S), _client(address) as client:
        cluster = await client.describe_cluster()
        return {broker["node_id"] for broker in cluster["brokers"]}


async def _create_topics(bootstrap_servers: str, topics: Mapping[str, int]) -> None:
    async with open_admin(Connection(bootstrap_servers)) as admin:
        replicas = await admin.default_replication_factor()
        specs = [
            TopicSpec(
                name=name,
                partitions=partitions,
                replication_factor=replicas,
                min_insync_replicas=max(1, replicas - 1),
                retention_ms=UNRECOGNIZED_RETENTION_MS if name == UNRECOGNIZED_TOPIC else FOREVER_MS,
            )
            for name, partitions in topics.items()
        ]
        await admin.create(specs)
