"""The ingress as a process: its start without Kafka, its stop, and what is left of its promises when it or Kafka dies.

Nothing here says how fast anything is; one bound ends a test that hangs.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import a_body
from tests.cluster import Cluster
from tests.integration.ingress_process import IngressProcess, Reply, ask, deliver, header
from tests.integration.load import Traffic
from tests.integration.service_process import HANG_S, until
from tests.kafka import paused

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]

# An answer waits as long as any test of this module holds Kafka back; the stop is as patient.
PATIENT = {"HTTP__DEADLINE_S": "60", "SHUTDOWN__GRACE_S": "270"}
# The shortest stop that still obeys every wait.
HASTY = {"HTTP__DEADLINE_S": "1", "SHUTDOWN__GRACE_S": "12"}


@asynccontextmanager
async def serving(directory: Path, cluster: Cluster, **settings: str) -> AsyncIterator[IngressProcess]:
    with IngressProcess(directory, cluster.bootstrap_servers, **settings) as ingress:
        await asyncio.to_thread(ingress.ready)
        yield ingress


async def an_answer(session: aiohttp.ClientSession, ingress: IngressProcess, webhook_id: str) -> Reply:
    body = a_body(id=webhook_id, data_prescription_id=f"rx-{ingress.source}")
    return await deliver(session, ingress, body, webhook_id=webhook_id)


async def said(session: aiohttp.ClientSession, ingress: IngressProcess, metric: str) -> float:
    families = text_string_to_metric_families((await ask(session, f"{ingress.management_url}/metrics")).body.decode())
    (found,) = (each for each in families if each.name == f"drxbridge_{metric}")
    return float(found.samples[0].value)


async def until_in_flight(session: aiohttp.ClientSession, ingress: IngressProcess, wanted: int) -> None:
    await until_said(session, ingress, "http_inflight_requests", wanted)


async def until_draining(session: aiohttp.ClientSession, ingress: IngressProcess) -> Reply:
    """Return what readiness says once the stop has begun."""
    while True:
        reply = await ask(session, f"{ingress.management_url}/readyz")
        if reply.json["checks"]["draining"] != "ok":
            return reply
        await asyncio.sleep(0.02)


async def until_said(session: aiohttp.ClientSession, ingress: IngressProcess, metric: str, wanted: float) -> None:
    while await said(session, ingress, metric) != wanted:  # noqa: ASYNC110 - another process gives us no event
        await asyncio.sleep(0.02)


async def ids_in_topic(ingress: IngressProcess) -> list[str]:
    return [header(record, "ce_id") for record in await ingress.records()]


async def test_a_stop_answers_what_waits_for_kafka_and_is_not_ready_meanwhile(
    cluster: Cluster, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ids = [f"evt_{number}" for number in range(20)]
    async with serving(tmp_path, cluster, **PATIENT) as ingress:
        async with paused(cluster):
            waiting = [asyncio.create_task(an_answer(session, ingress, each)) for each in ids]
            await until_in_flight(session, ingress, len(ids))
            ingress.send_signal(signal.SIGTERM)
            readiness = await until_draining(session, ingress)
        replies = await asyncio.gather(*waiting)

        assert readiness.status == 503
        assert [(reply.status, reply.headers.get("Connection")) for reply in replies] == [(200, "close")] * len(ids)
        assert await asyncio.to_thread(ingress.ended) == 0
        assert sorted(await ids_in_topic(ingress)) == sorted(ids)


async def test_a_stop_ends_although_kafka_says_nothing_and_requests_wait(
    cluster: Cluster, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The library's own `stop()` hangs here."""
    async with serving(tmp_path, cluster, **HASTY) as ingress, paused(cluster):
        waiting = [asyncio.create_task(an_answer(session, ingress, f"evt_{number}")) for number in range(20)]
        await until_in_flight(session, ingress, len(waiting))

        assert await ingress.end(signal.SIGTERM) == 0

        replies = await asyncio.gather(*waiting)
        assert {(reply.status, reply.json["outcome"]) for reply in replies} == {(202, "spooled")}


async def test_whatever_has_arrived_when_the_stop_comes_is_answered(cluster: Cluster, tmp_path: Path) -> None:
    """Senders that do not wait for each other go on through the stop; only what they send after it may fail.

    The process is frozen for a moment, so that it finds the signal, new connections and new requests all at once.
    """
    async with serving(tmp_path, cluster) as ingress, asyncio.timeout(HANG_S):
        traffic = Traffic(ingress)
        running = asyncio.create_task(traffic.run())
        await traffic.flowing.wait()
        ingress.send_signal(signal.SIGSTOP)
        await traffic.more(100)
        owed = set(traffic.sent)
        ingress.send_signal(signal.SIGTERM)
        ingress.send_signal(signal.SIGCONT)
        await running

        assert await asyncio.to_thread(ingress.ended) == 0
        assert {traffic.statuses.get(each) for each in owed} == {200}
        promised = {each for each, status in traffic.statuses.items() if status == 200}
        assert promised <= set(await ids_in_topic(ingress))


async def test_it_is_not_ready_while_brokers_say_nothing_and_a_delivery_would_be_refused(
    cluster: Cluster, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Nothing is written before, so that no delivery pays for finding it out."""

    async def until_checked(ingress: IngressProcess, *words: str) -> None:
        await asyncio.to_thread(until, lambda: ingress.checks().get("kafka") in words, what=f"one of {words}")

    with (
        IngressProcess(tmp_path / "without", cluster.bootstrap_servers, SPOOL__ENABLED="false", **HASTY) as without,
        IngressProcess(tmp_path / "spooling", cluster.bootstrap_servers, **HASTY) as spooling,
    ):
        await until_checked(without, "recalling", "ok")
        await until_checked(spooling, "recalling", "ok")
        async with paused(cluster):
            await until_checked(without, "no_answer")
            await until_checked(spooling, "degraded")
            statuses = [(await asyncio.to_thread(each.asked, "/readyz"))[0] for each in (without, spooling)]
            answers = [(await an_answer(session, each, "evt_1")).status for each in (without, spooling)]
        await asyncio.to_thread(without.ready)

        assert (statuses, answers) == ([503, 200], [503, 202])
        assert (await an_answer(session, without, "evt_2")).status == 200
