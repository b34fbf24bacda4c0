import asyncio
import signal
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.builders import a_body
from tests.cluster import Cluster
from tests.integration.ingress_process import IngressProcess, Reply, deliver, header
from tests.integration.service_process import until
from tests.kafka import paused

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]

# An answer waits as long as any test of this module holds Kafka back; the stop is as patient.
PATIENT = {"HTTP__DEADLINE_S": "60", "SHUTDOWN__GRACE_S": "270"}
# The shortest stop that still obeys every wait.
HASTY = {"HTTP__DEADLINE_S": "1", "SHUTDOWN__GRACE_S": "12"}
IDS = [f"evt_{number}" for number in range(20)]


async def an_answer(session: aiohttp.ClientSession, ingress: IngressProcess, webhook_id: str) -> Reply:
    body = a_body(id=webhook_id, data_prescription_id=f"rx-{ingress.source}")
    return await deliver(session, ingress, body, webhook_id=webhook_id)


async def waiting_answers(session: aiohttp.ClientSession, ingress: IngressProcess) -> list[asyncio.Task[Reply]]:
    """Make a delivery for each of `IDS`, and return once all are in flight."""
    tasks = [asyncio.create_task(an_answer(session, ingress, each)) for each in IDS]
    in_flight = partial(ingress.metric, "drxbridge_http_inflight_requests")
    await asyncio.to_thread(until, lambda: in_flight() == len(IDS), what="deliveries in flight")
    return tasks


async def test_a_stop_answers_what_waits_for_kafka_and_is_not_ready_meanwhile(
    cluster: Cluster, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    with IngressProcess(tmp_path, cluster.bootstrap_servers, **PATIENT) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with paused(cluster):
            waiting = await waiting_answers(session, ingress)
            ingress.send_signal(signal.SIGTERM)
            await asyncio.to_thread(until, lambda: ingress.checks()["draining"] == "draining", what="a stop")
            assert ingress.asked("/readyz")[0] == 503
        replies = await asyncio.gather(*waiting)

        assert [(reply.status, reply.headers.get("Connection")) for reply in replies] == [(200, "close")] * len(IDS)
        assert await asyncio.to_thread(ingress.ended) == 0
        assert sorted(header(record, "ce_id") for record in await ingress.records()) == sorted(IDS)


async def test_a_stop_ends_although_kafka_says_nothing_and_requests_wait(
    cluster: Cluster, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The library's own `stop()` hangs here."""
    with IngressProcess(tmp_path, cluster.bootstrap_servers, **HASTY) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with paused(cluster):
            waiting = await waiting_answers(session, ingress)

            assert await ingress.end(signal.SIGTERM) == 0

            replies = await asyncio.gather(*waiting)
            assert {(reply.status, reply.json["outcome"]) for reply in replies} == {(202, "spooled")}
