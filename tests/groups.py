"""Consumer groups as their coordinator reports them."""

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType  # noqa: TID251 - no admin client can do it
from aiokafka.protocol.group import LeaveGroupRequest  # noqa: TID251 - as above
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import TopicPartition
from consumers.runtime.transport import GroupTransport, Timing
from tests.kafka import HANG_S

LOOK_S = 0.1
HASTY = Timing(session_s=10, rebalance_s=10, max_poll_s=60)
# A broker that has just started, or never had a group, coordinates none for a moment.
_LOADING = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR)


@asynccontextmanager
async def a_member(bootstrap_servers: str, *, group: str, topic: str) -> AsyncIterator[GroupTransport]:
    """Run a member with an assignment; it leaves at the end."""
    joined = asyncio.Event()

    class Listener:
        async def revoked(self, tps: frozenset[TopicPartition]) -> None:
            pass

        def assigned(self, tps: frozenset[TopicPartition]) -> None:
            del tps
            joined.set()

    member = GroupTransport(KafkaConnection(bootstrap_servers), group=group, topics=[topic], timing=HASTY)
    await member.start(Listener())
    try:
        async with asyncio.timeout(HANG_S):
            await joined.wait()
        yield member
    finally:
        await member.stop()


def members(bootstrap_servers: str, group: str) -> list[str]:
    """Ids of the group's members, dead ones until their sessions expire; none before the first join."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    deadline = time.monotonic() + HANG_S
    while True:
        (found,) = admin.describe_consumer_groups([group]).values()
        try:
            return [each.member_id for each in found.result(HANG_S).members]
        except KafkaException as exc:
            code = exc.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            if code not in _LOADING or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_S)


def forget_members(bootstrap_servers: str, group: str) -> None:
    """Remove all dead members from the group, as at the end of their sessions.

    The next member then joins at once. The shortest session that a broker allows is 6 s.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, _leave(bootstrap_servers, group, members(bootstrap_servers, group))).result()


async def _leave(bootstrap_servers: str, group: str, member_ids: list[str]) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers)
    await client.bootstrap()
    try:
        coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
        for member_id in member_ids:
            await client.send(coordinator, LeaveGroupRequest(group, member_id), group=ConnectionGroup.COORDINATION)
    finally:
        await client.close()
