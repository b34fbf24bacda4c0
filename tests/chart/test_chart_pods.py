"""The pods of the chart, run: probes pass, secrets rotate, a stop loses nothing, nothing is written to the root."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg  # noqa: TID251 - a test looks at what the consumer has written
import pytest

from bridge.dev.ports import free_port
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from bridge.kafka.transport import ConsumedRecord
from tests.builders import KEY, SECRET, a_body, signed_headers
from tests.chart.kubelet import Pod, template_of
from tests.chart.rendering import Rendered, Values, load, merged, render
from tests.cluster import STANDARD_TOPICS, Cluster
from tests.integration.service_process import HANG_S, until

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]

SPOOL_KEY = "spk_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with asyncio.timeout(HANG_S * 2), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


@dataclass
class Site:
    """The minimal case, in front of the cluster of the tests, and a source and a schema of the test's own."""

    bootstrap_servers: str
    dsn: str = "postgresql://nobody@127.0.0.1:1/none"
    source: str = field(default_factory=lambda: f"s{uuid4().hex[:12]}")
    schema: str = field(default_factory=lambda: f"m{uuid4().hex[:12]}")

    @property
    def secrets(self) -> dict[str, dict[str, str]]:
        return {
            "drx-webhook": {"current": SECRET},
            "drx-spool-key": {"current": SPOOL_KEY},
            "drx-read-model-postgres": {"dsn": self.dsn},
        }

    def values(self, *, kafka: Mapping[str, Any] | None = None, **ingress: Any) -> Values:
        values = load("minimal")
        (settings,) = values["ingress"]["sources"].values()
        values["ingress"] |= {"sources": {self.source: settings | {"environment": "sandbox"}}, "kafka": {}}
        values["consumers"]["read_model"]["kafka"] = {}
        over = {
            "accept": ["plaintext_kafka"],
            "kafka": {"bootstrapServers": self.bootstrap_servers, "securityProtocol": "PLAINTEXT", **(kafka or {})},
            "ingress": ingress,
            "topicsJob": {"enabled": True},
            "consumers": {"read_model": {"options": {"schema": self.schema}}},
        }
        return merged(values, over)

    def rendered(self, **over: Any) -> Rendered:
        return render(self.values(**over))

    def pod(self, rendered: Rendered, kind: str, suffix: str, directory: Path, **more: Any) -> Pod:
        name = f"{suffix.strip('-')}-{uuid4().hex[:6]}"
        template = template_of(rendered, kind, suffix)
        return Pod(rendered, template, name=name, directory=directory / name, secrets=self.secrets, **more)

    @asynccontextmanager
    async def running(
        self, rendered: Rendered, kind: str, suffix: str, directory: Path, **more: Any
    ) -> AsyncIterator[Pod]:
        with self.pod(rendered, kind, suffix, directory, **more) as pod:
            await asyncio.to_thread(pod.started)
            yield pod

    async def deliver(self, session: aiohttp.ClientSession, pod: Pod, number: int, *, key: bytes = KEY) -> int:
        body = a_body(id=f"{self.source}-{number}", data_prescription_id=f"rx-{self.source}-{number % 7}")
        headers = signed_headers(body, webhook_id=f"{self.source}-{number}", key=key)
        url = f"{pod.url('http')}/webhooks/{self.source}"
        async with session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def records(self) -> list[ConsumedRecord]:
        source = ("ce_source", self.source.encode())
        async with open_reader(
            KafkaConnection(self.bootstrap_servers), list(STANDARD_TOPICS), from_beginning=True
        ) as found:
            return [record async for record in found.until_end() if source in record.headers]

    async def ids(self) -> set[str]:
        return {dict(record.headers)["ce_id"].decode() for record in await self.records()}


@pytest.mark.parametrize("spool", [True, False])
async def test_the_ingress_starts_and_takes_deliveries(
    cluster: Cluster, tmp_path: Path, session: aiohttp.ClientSession, *, spool: bool
) -> None:
    site = Site(cluster.bootstrap_servers)
    kind = "StatefulSet" if spool else "Deployment"
    async with site.running(site.rendered(spool={"enabled": spool}), kind, "-ingress", tmp_path) as pod:
        assert await site.deliver(session, pod, 1) == 200

        assert await asyncio.to_thread(pod.delete) == 0
        assert await site.ids() == {f"{site.source}-1"}


async def test_what_a_pod_that_is_gone_has_spooled_a_job_delivers(
    cluster: Cluster, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Also where the spool is turned off: the volume is all that is left of it then."""
    site = Site(cluster.bootstrap_servers)
    volume = tmp_path / "claim"
    away = site.rendered(kafka={"bootstrapServers": f"127.0.0.1:{free_port()}"})
    async with site.running(away, "StatefulSet", "-ingress", tmp_path, claim=volume) as pod:
        assert await site.deliver(session, pod, 1) == 202
        assert await asyncio.to_thread(pod.delete) == 0

    off = site.rendered(spool={"enabled": False, "drainClaims": ["data-drx-drx-bridge-ingress-0"]})
    job = off.one("Job", "-drain-0")["metadata"]["name"]
    with site.pod(off, "Job", job, tmp_path, claim=volume) as pod:
        assert await asyncio.to_thread(pod.ended, within_s=HANG_S) == 0, pod.output()

    assert await site.ids() == {f"{site.source}-1"}


async def test_helm_test_sends_a_heartbeat_all_the_way(cluster: Cluster, tmp_path: Path) -> None:
    site = Site(cluster.bootstrap_servers)
    rendered = site.rendered()
    async with site.running(rendered, "StatefulSet", "-ingress", tmp_path) as pod:
        service = rendered.one("Service", "-ingress")
        address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
        with site.pod(rendered, "Pod", "-test", tmp_path, addresses={address: pod.url("http")}) as test:
            code = await asyncio.to_thread(test.ended, within_s=HANG_S)

        assert code == 0, test.output()
    (record,) = await site.records()
    assert record.topic == "drx.accounts.v1"
    assert dict(record.headers)["ce_type"] == b"system.ping"


async def test_the_read_model_is_made_ready_starts_and_stops(
    cluster: Cluster, postgres: str, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    site = Site(cluster.bootstrap_servers, dsn=postgres)
    rendered = site.rendered()
    with site.pod(rendered, "Job", "-topics", tmp_path) as job:
        assert await asyncio.to_thread(job.ended, within_s=HANG_S) == 0, job.output()
    async with site.running(rendered, "StatefulSet", "-ingress", tmp_path) as ingress:
        assert await site.deliver(session, ingress, 1) == 200
    with site.pod(rendered, "Job", "-init", tmp_path) as job:
        assert await asyncio.to_thread(job.ended, within_s=HANG_S) == 0, job.output()
    async with site.running(rendered, "Deployment", "-read-model", tmp_path) as reader:
        await asyncio.to_thread(until, lambda: asyncio.run(applied(site)), what="the event in PostgreSQL")
        # An upgrade finds the pods of the release before at work.
        with site.pod(rendered, "Job", "-init", tmp_path) as job:
            assert await asyncio.to_thread(job.ended, within_s=HANG_S) == 0, job.output()

        assert await asyncio.to_thread(reader.delete) == 0


async def applied(site: Site) -> bool:
    connection = await asyncpg.connect(site.dsn)
    try:
        query = f"select count(*) from {site.schema}.event where source = $1"  # noqa: S608 - a schema of ours
        return bool(await connection.fetchval(query, site.source) == 1)
    finally:
        await connection.close()
