"""The few questions the embedded stack has for its brokers, asked from code that does not run a loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: TID251 - the stack asks its own brokers
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code  # noqa: TID251 - as above

from bridge.errors import ConfigError

T = TypeVar("T")

# A loopback answer takes milliseconds; a broker that is still starting accepts the connection and says nothing.
_PROBE_TIMEOUT_S = 3.0
_REQUEST_TIMEOUT_S = 30.0
# As in production.
_REPLICAS_MAX = 3


def known_brokers(address: str) -> set[int]:
    """Ids of the live brokers as the one at `address` knows them; none while it does not answer."""
    host, _, port = address.rpartition(":")
    try:
        # A refused connection is cheap to find out here; aiokafka would log an error each time.
        socket.create_connection((host, int(port)), timeout=_PROBE_TIMEOUT_S).close()
        return _run(_known_brokers(address))
    except (OSError, TimeoutError, KafkaError):
        return set()


def create_topics(
    bootstrap_servers: str, topics: Mapping[str, int], *, configs: Mapping[str, str] | None = None
) -> None:
    """Create those of `topics` (partitions by name) that are missing, on as many brokers as there are, three at most.

    Raises:
        ConfigError: The brokers refused, or did not answer in time.
    """
    try:
        _run(_create_topics(bootstrap_servers, topics, configs=dict(configs or {})))
    except (KafkaError, TimeoutError) as exc:
        msg = f"the topics could not be created at {bootstrap_servers} ({type(exc).__name__})"
        raise ConfigError(msg) from exc


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


async def _create_topics(bootstrap_servers: str, topics: Mapping[str, int], *, configs: dict[str, str]) -> None:
    async with asyncio.timeout(_REQUEST_TIMEOUT_S), _client(bootstrap_servers) as client:
        # aiokafka has no word for "the broker's default".
        replicas = min(_REPLICAS_MAX, len((await client.describe_cluster())["brokers"]))
        wanted = [NewTopic(name, partitions, replicas, topic_configs=configs) for name, partitions in topics.items()]
        answer = await client.create_topics(wanted)
    for _name, code, *_message in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise for_code(code)
