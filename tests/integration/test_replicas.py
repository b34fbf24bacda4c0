"""Two ingresses behind one address know of each other's deliveries; what both write is settled by consumers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import orjson
import pytest

from tests.builders import SECRET
from tests.cluster import Cluster
from tests.integration.ingress_process import IngressProcess, ask, header
from tests.integration.service_process import until

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]


@asynccontextmanager
async def replica(directory: Path, cluster: Cluster, source: str, **settings: str) -> AsyncIterator[IngressProcess]:
    """Run one that is ready, and has read what was in the topics before it."""
    with IngressProcess(directory / uuid4().hex, cluster.bootstrap_servers, source=source, **settings) as ingress:
        await asyncio.to_thread(ingress.ready)
        await until_at_least(ingress, "drxbridge_dedupe_ready", 1)
        yield ingress


async def until_at_least(ingress: IngressProcess, metric: str, number: int) -> None:
    await asyncio.to_thread(until, lambda: ingress.metric(metric) >= number, what=metric)


async def test_a_return_to_a_state_is_written_if_another_replica_took_what_was_in_between(
    cluster: Cluster, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """A vendor without ids pushes packed, approved, packed: to two replicas, then before and after a restart."""
    source = f"s{uuid4().hex}"
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
        replica(tmp_path, cluster, source, **settings) as left,
        replica(tmp_path, cluster, source, **settings) as right,
    ):
        outcomes = []
        for number, (one, other, status) in enumerate(
            [(left, right, "Packed"), (right, left, "Approved"), (left, right, "Packed")], start=1
        ):
            outcomes.append(await push(one, status))
            await until_at_least(other, "drxbridge_dedupe_ids", number)
        outcomes += [await push(one, "Packed") for one in (left, right)]
    async with replica(tmp_path, cluster, source, **settings) as later:
        outcomes += [await push(later, status) for status in ("Packed", "Approved", "Packed")]
        records = await later.records()

    new, repeat = "accepted", "duplicate"
    # A repeat is one only for the process that took the first.
    assert outcomes == [new, new, new, repeat, new, new, new, new]
    assert len({header(each, "ce_id") for each in records}) == len(records) == 7
