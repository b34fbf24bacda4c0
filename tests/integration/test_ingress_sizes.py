"""Bodies whose unknown members make a record of four times their size, on real brokers."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from bridge.dev.kafka import create_topics
from bridge.dev.ports import free_port
from bridge.kafka.record import MESSAGE_MAX_LEAST_BYTES
from tests.builders import a_body, a_growing_body
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, deliver, header
from tests.integration.service_process import HANG_S, until
from tests.kafka import limit_messages, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]

BODY = a_growing_body(262_144)


@pytest.fixture
def topic(topics: Topics) -> str:
    """Give a topic with one partition, in which everything would wait behind a record that is refused."""
    name = topics.unique_key("test")
    create_topics(topics.bootstrap_servers, {name: 1})
    return name


def settings(topic: str, **others: str) -> dict[str, str]:
    return {"KAFKA__ROUTES": f'{{"*": "{topic}"}}', "KAFKA__PARTITIONS": "1"} | others


async def until_drained(ingress: IngressProcess) -> None:
    async with asyncio.timeout(HANG_S):
        while await asyncio.to_thread(ingress.metric, "drxbridge_spool_events"):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_the_largest_body_goes_over_the_disk_as_well(cluster: Cluster, topic: str, tmp_path: Path) -> None:
    away = f"127.0.0.1:{free_port()}"
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        with IngressProcess(tmp_path, away, **settings(topic)) as ingress:
            await asyncio.to_thread(ingress.ready)
            large = await deliver(session, ingress, BODY, webhook_id="evt_1")
            small = await deliver(session, ingress, a_body(), webhook_id="evt_2")
            await asyncio.to_thread(ingress.kill)
            ingress.start(BRIDGE_KAFKA__BOOTSTRAP_SERVERS=cluster.bootstrap_servers)
            await asyncio.to_thread(ingress.ready)
            await until_drained(ingress)

        assert (large.status, small.status) == (202, 202), (large.json, small.json)
        written = await read_all(cluster.bootstrap_servers, topic)
        assert [header(record, "ce_id") for record in written] == ["evt_1", "evt_2"]


async def test_what_a_narrow_topic_would_refuse_is_parked_as_it_came_and_nothing_waits_for_it(
    cluster: Cluster, topic: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(limit_messages, cluster.bootstrap_servers, topic, MESSAGE_MAX_LEAST_BYTES)
    narrow = settings(topic, KAFKA__MESSAGE_MAX_BYTES=str(MESSAGE_MAX_LEAST_BYTES))
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        with IngressProcess(tmp_path, cluster.bootstrap_servers, **narrow) as ingress:
            await asyncio.to_thread(ingress.ready)
            large = await deliver(session, ingress, BODY, webhook_id="evt_1")
            small = await deliver(session, ingress, a_body(), webhook_id="evt_2")
            (parked,) = [each for each in await ingress.records() if each.topic == "drx.unrecognized.v1"]
            # Lines are written by a thread of their own, and the end of this block is a kill.
            await asyncio.to_thread(until, lambda: '"detail":"too_large"' in ingress.output(), what="its line")

        assert (large.status, large.json["reason"], small.status) == (202, "unusable", 200)
        assert [header(each, "ce_id") for each in await read_all(cluster.bootstrap_servers, topic)] == ["evt_2"]
        assert header(parked, "ce_id") == "evt_1"
        assert BODY in (parked.value or b"")
