"""Consumer groups, as their coordinator sees them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType  # noqa: TID251 - no admin client can do it
from aiokafka.protocol.group import LeaveGroupRequest  # noqa: TID251 - as above
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka import HANG_S


def members(bootstrap_servers: str, group: str) -> list[str]:
    """Ids of those that the group counts, dead ones until their sessions have run out; none before the first join."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})  # gone, it would answer nothing
    (found,) = admin.describe_consumer_groups([group]).values()
    try:
        return [each.member_id for each in found.result(HANG_S).members]
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        return []


def forget_members(bootstrap_servers: str, group: str) -> None:
    """Take all members, which are dead, out of the group, as it does when their sessions have run out.

    The next one then joins at once. The shortest session that a broker allows is 6 s.
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
