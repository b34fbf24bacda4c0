import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bridge.ingress.heartbeat import SOURCE
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from tests.builders import SAMPLES, a_body
from tests.cluster import STANDARD_TOPICS, Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.ingress_process import IngressProcess, ask, deliver, header
from tests.integration.service_process import HANG_S, until
from tests.metric_contract import broken
from tests.patched import patched
from tests.promtool import promtool

pytestmark = pytest.mark.kafka

ACCOUNTS = "drx.accounts.v1"
# Of one process, whatever is sent.
SERIES_MAX = 1_500


@pytest.fixture(scope="module")
def ingress(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngressProcess]:
    Topics(cluster.bootstrap_servers).standard()
    directory = tmp_path_factory.mktemp("ingress")
    command = patched("bridge", "serve", HEARTBEAT_S=0.2)
    with IngressProcess(directory, cluster.bootstrap_servers, command=command, HEARTBEAT__ENABLED="true") as one:
        yield one.ready()


def judged(text: str) -> tuple[int, str]:
    done = promtool("check", "metrics", stdin=text)
    return done.returncode, done.stdout + done.stderr


def heartbeats(ingress: IngressProcess) -> float:
    return ingress.metric("drxbridge_heartbeat_last_seen_timestamp_seconds")


async def test_the_ingress_counts_what_is_promised_under_all_it_answers(ingress: IngressProcess) -> None:
    ping = (SAMPLES / "native" / "36_system_ping.json").read_bytes()
    async with aiohttp.ClientSession() as session:
        for body in (a_body(data_prescription_id=f"rx_{uuid4().hex}"), ping, a_body(type="no such type"), b"{"):
            for _ in range(2):
                assert (await deliver(session, ingress, body, webhook_id=f"evt_{len(body)}")).status in {200, 202}
        for change in ({"webhook_timestamp": "1"}, {"content_type": "text/plain"}, {"webhook_signature": "v1,x"}):
            assert (await deliver(session, ingress, ping, webhook_id="evt_refused", **change)).status in {401, 415}
        assert (await ask(session, f"{ingress.url}/elsewhere")).status == 404
        assert (await ask(session, ingress.webhook_url, method="PROPFIND")).status == 405

    text = ingress.asked("/metrics")[1].decode()
    bounds = {"source": {ingress.source, SOURCE}, "topic": set(STANDARD_TOPICS)}
    assert broken(parse_text(text), "ingress", bounds=bounds) == []
    assert judged(text) == (0, "")
    until(lambda: ingress.metric("drxbridge_produce_total", outcome="acknowledged") >= 4, what="what was spooled, too")
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= SERIES_MAX


async def test_a_consumer_counts_what_is_promised(ingress: IngressProcess, postgres: str, tmp_path: Path) -> None:
    # Built anew beside another: what is late there is no lateness of the other's. Records of other tests are no matter.
    settings: dict[str, Any] = {"READ_MODEL__SCHEMA": "anew", "KAFKA__OFFSET_RESET": "latest"}
    servers = ingress.bootstrap_servers
    with ConsumerProcess(tmp_path, "read_model", bootstrap_servers=servers, dsn=postgres, **settings) as consumer:
        consumer.ready()
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
            for topic in (ACCOUNTS, "drx.prescriptions.v1"):
                while not consumer.metric("drxbridge_consumer_records_total", topic=topic, outcome="applied"):
                    body = a_body(data_prescription_id=f"rx_{uuid4().hex}")
                    assert (await deliver(session, ingress, body, webhook_id=f"evt_{uuid4().hex}")).status == 200
        until(lambda: consumer.metric("drxbridge_read_model_timers_checked_timestamp_seconds"), what="a timer job")

        text = consumer.asked("/metrics")[1].decode()

    bounds = {"service": {"read_model.anew"}, "topic": {"drx.prescriptions.v1", ACCOUNTS}}
    assert broken(parse_text(text), "consumer", "read_model", bounds=bounds) == []
    assert judged(text) == (0, "")
    assert len([line for line in text.splitlines() if not line.startswith("#")]) <= SERIES_MAX
    # What an alert counts is there before the first of it.
    for name in ("park", "fence_rejected", "consumer_bugs", "client_rebuilds", "consumer_rebalances"):
        assert f"drxbridge_{name}_total{{" in text


async def test_a_heartbeat_goes_all_the_way_into_kafka(ingress: IngressProcess) -> None:
    began = heartbeats(ingress)
    assert time.time() - 3600 < began <= time.time()
    until(lambda: heartbeats(ingress) > began, what="a heartbeat")

    async with open_reader(KafkaConnection(ingress.bootstrap_servers), [ACCOUNTS], from_beginning=True) as found:
        key = f"heartbeat-{ingress.instance}".encode()
        records = [record async for record in found.until_end() if record.key == key]
    assert records
    assert {header(record, "ce_source") for record in records} == {SOURCE}
    assert {header(record, "ce_type") for record in records} == {"system.ping"}
    assert len({header(record, "ce_id") for record in records}) == len(records)


async def test_without_it_nothing_is_posted_and_nothing_is_said(cluster: Cluster, tmp_path: Path) -> None:
    with IngressProcess(tmp_path, cluster.bootstrap_servers) as quiet:
        assert "drxbridge_heartbeat_last_seen_timestamp_seconds{" not in quiet.ready().asked("/metrics")[1].decode()
        assert quiet.metric("drxbridge_http_requests_total") == 0
