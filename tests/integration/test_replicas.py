"""Two ingresses behind one address know of each other's deliveries; what both write is settled by consumers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import SECRET
from tests.cluster import Cluster
from tests.integration.ingress_process import IngressProcess, ask, header

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]


@pytest.fixture
def source() -> str:
    return f"s{uuid4().hex}"


@asynccontextmanager
async def replica(
    directory: Path, cluster: Cluster, session: aiohttp.ClientSession, source: str, **settings: str
) -> AsyncIterator[IngressProcess]:
    """Run one that is ready, and has read what was in the topics before it."""
    with IngressProcess(directory / uuid4().hex, cluster.bootstrap_servers, source=source, **settings) as ingress:
        await asyncio.to_thread(ingress.ready)
        while not await recalled(session, ingress):  # noqa: ASYNC110 - another process gives us no event
            await asyncio.sleep(0.05)
        yield ingress


async def recalled(session: aiohttp.ClientSession, ingress: IngressProcess) -> bool:
    return bool(await gauge(session, ingress, "dedupe_ready"))


async def gauge(session: aiohttp.ClientSession, ingress: IngressProcess, name: str) -> float:
    text = (await ask(session, f"{ingress.management_url}/metrics")).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return float(families[f"drxbridge_{name}"].samples[0].value)


async def test_a_return_to_a_state_is_written_if_another_replica_took_what_was_in_between(
    cluster: Cluster, session: aiohttp.ClientSession, source: str, tmp_path: Path
) -> None:
    """A vendor without ids pushes packed, approved, packed: to two replicas, then before and after a restart."""
    settings = {
        f"SOURCES__{source}__{name}": value
        for name, value in {
            "PROFILE": "digitalrx_pharmacy",
            "SCHEME": "secret_header",
            "OPTIONS__ACCOUNT_ID": "acct_1",
            "ACCEPT": "no_tls",
        }.items()
    }

    async def push(ingress: IngressProcess, status: str) -> str:
        body = orjson.dumps({"StoreID": "1", "QueueID": source, "Statuswf": status})
        headers = {"content-type": "application/json", "x-webhook-secret": SECRET}
        reply = await ask(session, ingress.webhook_url, method="POST", data=body, headers=headers)
        return str(reply.json["outcome"])

    async with (
        replica(tmp_path, cluster, session, source, **settings) as left,
        replica(tmp_path, cluster, session, source, **settings) as right,
    ):
        outcomes = []
        for number, (one, other, status) in enumerate(
            [(left, right, "Packed"), (right, left, "Approved"), (left, right, "Packed")], start=1
        ):
            outcomes.append(await push(one, status))
            while await gauge(session, other, "dedupe_ids") < number:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        outcomes += [await push(one, "Packed") for one in (left, right)]
    async with replica(tmp_path, cluster, session, source, **settings) as later:
        outcomes += [await push(later, status) for status in ("Packed", "Approved", "Packed")]
        records = await later.records()

    new, repeat = "accepted", "duplicate"
    assert outcomes == [new, new, new, repeat, repeat, repeat, new, new]
    assert len({header(each, "ce_id") for each in records}) == len(records) == 5
