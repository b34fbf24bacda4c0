"""Two ingresses behind one address know of each other's deliveries; what both write is settled by consumers."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import SECRET, a_body
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, Reply, ask, deliver, header
from tests.integration.service_process import HANG_S
from tests.kafka import killed

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def standard_topics(topics: Topics) -> None:
    topics.standard()


@pytest.fixture
def source() -> str:
    return f"s{uuid4().hex}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as opened:
        yield opened


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


async def spooled(session: aiohttp.ClientSession, ingress: IngressProcess) -> float:
    return await gauge(session, ingress, "spool_events")


async def gauge(session: aiohttp.ClientSession, ingress: IngressProcess, name: str) -> float:
    text = (await ask(session, f"{ingress.management_url}/metrics")).body.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return float(families[f"drxbridge_{name}"].samples[0].value)


def said(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["outcome"] + reply.json.get("reason", "")


async def test_what_another_replica_took_is_a_duplicate_and_another_body_is_parked(
    cluster: Cluster, session: aiohttp.ClientSession, source: str, tmp_path: Path
) -> None:
    same, other = a_body(), a_body(account_id="acct_2")
    unusable = a_body(id="evt_bad", type="prescription unheard of")
    async with (
        replica(tmp_path, cluster, session, source) as left,
        replica(tmp_path, cluster, session, source) as right,
    ):
        taken = [
            await deliver(session, left, same, webhook_id="evt_1"),
            await deliver(session, left, unusable, webhook_id="evt_bad"),
        ]
        while await gauge(session, right, "dedupe_ids") < len(taken):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        retries = [
            await deliver(session, right, same, webhook_id="evt_1"),
            await deliver(session, right, other, webhook_id="evt_1"),
            await deliver(session, right, unusable, webhook_id="evt_bad"),
        ]
        lags = [await gauge(session, each, "dedupe_follow_lag_seconds") for each in (left, right)]
        records = await left.records()

    assert [said(reply) for reply in taken] == [(200, "accepted"), (202, "parkedunknown_type")]
    assert [said(reply) for reply in retries] == [
        (200, "duplicate"),
        (202, "parkedid_conflict"),
        (202, "parkedunknown_type"),
    ]
    assert sorted(header(each, "ce_id") for each in records) == ["evt_1", "evt_1", "evt_bad"]
    assert all(lag >= 0 for lag in lags)


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


async def test_what_two_replicas_spooled_is_written_once(
    cluster: Cluster, session: aiohttp.ClientSession, source: str, tmp_path: Path
) -> None:
    """The second one is frozen until the first has drained: it is where it was, and must look before it writes."""
    bodies = {f"evt_{n}-{source}": a_body(id=f"evt_{n}-{source}", data_prescription_id=f"rx-{n}") for n in range(30)}
    async with (
        replica(tmp_path, cluster, session, source) as left,
        replica(tmp_path, cluster, session, source) as right,
    ):
        async with killed(cluster):
            for each in (left, right):
                # Its client still has this one in flight, so it may be written beside what is drained.
                await deliver(session, each, a_body(id=f"evt_first-{source}"), webhook_id=f"evt_first-{source}")
            taken = [
                await deliver(session, each, body, webhook_id=webhook_id)
                for webhook_id, body in bodies.items()
                for each in (left, right)
            ]
            right.send_signal(signal.SIGSTOP)
        while await gauge(session, left, "spool_events"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
        right.send_signal(signal.SIGCONT)
        while await gauge(session, right, "spool_events"):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
        written = Counter(header(each, "ce_id") for each in await left.records())

    assert {said(reply) for reply in taken} == {(202, "spooled")}
    del written[f"evt_first-{source}"]
    assert written == dict.fromkeys(bodies, 1)


async def test_after_a_start_it_knows_what_was_written_before_by_whomever(
    cluster: Cluster, session: aiohttp.ClientSession, source: str, tmp_path: Path
) -> None:
    body, other = a_body(), a_body(account_id="acct_2")
    unusable = a_body(id="evt_bad", type="prescription unheard of")
    async with replica(tmp_path, cluster, session, source) as earlier:
        first = [
            await deliver(session, earlier, body, webhook_id="evt_1"),
            await deliver(session, earlier, unusable, webhook_id="evt_bad"),
        ]
    async with replica(tmp_path, cluster, session, source) as later:
        retries = [
            await deliver(session, later, body, webhook_id="evt_1"),
            await deliver(session, later, other, webhook_id="evt_1"),
            await deliver(session, later, unusable, webhook_id="evt_bad"),
        ]
        records = await later.records()

    assert [said(reply) for reply in first] == [(200, "accepted"), (202, "parkedunknown_type")]
    assert [said(reply) for reply in retries] == [
        (200, "duplicate"),
        (202, "parkedid_conflict"),
        (202, "parkedunknown_type"),
    ]
    assert sorted(header(each, "ce_id") for each in records) == ["evt_1", "evt_1", "evt_bad"]


async def test_what_is_sent_again_the_moment_a_killed_process_is_back_is_not_written_again(
    cluster: Cluster, session: aiohttp.ClientSession, source: str, tmp_path: Path
) -> None:
    bodies = {f"evt_{n}-{source}": a_body(id=f"evt_{n}-{source}", data_prescription_id=f"rx-{n}") for n in range(30)}

    async def deliver_all(ingress: IngressProcess) -> list[Reply]:
        sent = [deliver(session, ingress, body, webhook_id=webhook_id) for webhook_id, body in bodies.items()]
        return await asyncio.gather(*sent)

    async with replica(tmp_path, cluster, session, source) as ingress:
        first = await deliver_all(ingress)
        await asyncio.to_thread(ingress.kill)
        ingress.start()
        # Not until it is ready: a balancer that tries connections only sends at once.
        await asyncio.to_thread(ingress.live)
        again = await deliver_all(ingress)
        while await spooled(session, ingress):  # noqa: ASYNC110 - another process gives us no event
            await asyncio.sleep(0.05)
        records = await ingress.records()

    assert {said(reply) for reply in first} == {(200, "accepted")}
    assert {said(reply) for reply in again} <= {(202, "spooled"), (200, "duplicate")}
    assert Counter(header(each, "ce_id") for each in records) == dict.fromkeys(bodies, 1)
