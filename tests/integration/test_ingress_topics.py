"""The ingress on a cluster whose topics are not as the contract wants them."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from bridge.dev.ports import free_port
from tests.builders import a_body
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, Reply, ask, deliver, header
from tests.integration.service_process import HANG_S, until
from tests.kafka import read_all

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]


@asynccontextmanager
async def routed(directory: Path, cluster: Cluster, topic: str, **settings: str) -> AsyncIterator[IngressProcess]:
    """Run an ingress that sends `prescription.processed` to `topic`."""
    routes = orjson.dumps({"prescription.processed": topic}).decode()
    with IngressProcess(directory, cluster.bootstrap_servers, KAFKA__ROUTES=routes, **settings) as ingress:
        await asyncio.to_thread(ingress.live)
        yield ingress


async def until_said(session: aiohttp.ClientSession, ingress: IngressProcess, check: str, word: str) -> Reply:
    while True:
        reply = await ask(session, f"{ingress.management_url}/readyz")
        if reply.json["checks"][check] == word:
            return reply
        await asyncio.sleep(0.05)


async def metrics(session: aiohttp.ClientSession, ingress: IngressProcess) -> list[str]:
    return (await ask(session, f"{ingress.management_url}/metrics")).body.decode().splitlines()


async def test_what_was_accepted_for_a_topic_reaches_it_after_its_route_has_gone(
    cluster: Cluster, topics: Topics, tmp_path: Path
) -> None:
    topic = await asyncio.to_thread(topics.fresh)
    servers = {"KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    async with (
        asyncio.timeout(HANG_S),
        aiohttp.ClientSession() as session,
        routed(tmp_path, cluster, topic, **servers) as ingress,
    ):
        await asyncio.to_thread(ingress.ready)
        away = await deliver(session, ingress, a_body(), webhook_id="evt_1")
        assert await ingress.end(signal.SIGTERM) == 0
        ingress.start(BRIDGE_KAFKA__ROUTES="{}", BRIDGE_KAFKA__BOOTSTRAP_SERVERS=cluster.bootstrap_servers)
        await asyncio.to_thread(ingress.ready)
        while "drxbridge_spool_events 0.0" not in await metrics(session, ingress):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
        later = await deliver(session, ingress, a_body(id="evt_2"), webhook_id="evt_2")

        assert (away.status, later.status) == (202, 200)
        assert [header(record, "ce_id") for record in await read_all(cluster.bootstrap_servers, topic)] == ["evt_1"]


async def test_with_too_few_partitions_and_no_spool_it_is_not_ready(
    cluster: Cluster, topics: Topics, tmp_path: Path
) -> None:
    """Some keys would have no place, and to move them would break their order."""
    topic = await asyncio.to_thread(topics.fresh, partitions=3)
    async with (
        asyncio.timeout(HANG_S),
        aiohttp.ClientSession() as session,
        routed(tmp_path, cluster, topic, SPOOL__ENABLED="false") as ingress,
    ):
        few = await until_said(session, ingress, "topics", "too_few_partitions")

        assert few.status == 503
        assert f'drxbridge_partition_count_mismatch{{topic="{topic}"}} 1.0' in await metrics(session, ingress)
        line = f'"topic":"{topic}","seen":3,"expected":12'
        await asyncio.to_thread(until, lambda: line in ingress.output(), what="the line")
