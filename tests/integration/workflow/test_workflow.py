import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client  # noqa: TID251 - the peer's own client
from temporalio.converter import DataConverter  # noqa: TID251 - as above

from bridge.dev.ports import HOST, free_port
from bridge.errors import ConfigError
from bridge.event import Event
from consumers.testing import Parked, Running, an_event, running
from consumers.workflow.consumer import open_workflow
from consumers.workflow.temporal import EncryptedPayloads, read_codec_keys
from tests.certificates import self_signed
from tests.faults.ingress.proxy import Trouble, proxies
from tests.kafka import HANG_S, until
from tests.temporal.histories import a_client, told
from tests.temporal.server import TemporalServer

OPEN = {"service": "workflow", "state": "open"}


@pytest.fixture
async def client(temporal: TemporalServer) -> AsyncIterator[Client]:
    async with a_client(temporal.address) as opened:
        yield opened


@pytest.fixture
def request_id() -> str:
    return f"req_{uuid4().hex}"


def options(temporal: TemporalServer, **more: str) -> dict[str, str]:
    return {"address": temporal.address, "allow_plaintext": "true", "timers": "off", **more}


def counted(consumer: Running, code: str) -> float:
    labels = {"service": "workflow", "code": code}
    return consumer.registry.get_sample_value("drxbridge_workflow_requests_total", labels) or 0


def ids(event: Event) -> dict[str, object]:
    return {
        "account_id": "acct_1",
        "event_id": event.id,
        "key": event.key,
        "occurred_at": "2026-09-14T15:09:26Z",
        "source": "drx",
        "type": event.type,
    }


async def test_a_request_is_one_workflow_from_the_question_to_the_answer(
    temporal: TemporalServer, client: Client, request_id: str
) -> None:
    asked = an_event("renewal.requested", request_id=request_id, patient={"first_name": "Ada", "last_name": "Berry"})
    answered = an_event("renewal.responded", request_id=request_id)
    closed = an_event("renewal.closed", request_id=request_id)
    async with running(open_workflow, options=options(temporal)) as consumer:
        await consumer.feed(asked, answered, closed)

        assert await consumer.parked() == []
        assert counted(consumer, "ok") == 3
    found = await told(client, f"renewal:drx:{request_id}")

    assert found is not None
    assert (found.workflow, found.task_queue) == ("Renewal", "drx")
    # By default nothing of what an event says but ids leaves.
    assert found.started_with == ids(asked)
    assert found.signals == [("asked", ids(asked)), ("answered", ids(answered)), ("closed", ids(closed))]


async def test_a_whole_event_is_sealed_and_opens_with_the_key(
    temporal: TemporalServer, client: Client, request_id: str, tmp_path: Path
) -> None:
    (tmp_path / "current").write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
    event = an_event("renewal.requested", request_id=request_id, patient={"first_name": "Ada", "last_name": "Berry"})
    given = options(temporal, payload="full", codec_key_dir=str(tmp_path))
    async with running(open_workflow, options=given) as consumer:
        await consumer.feed(event)
    workflow_id = f"renewal:drx:{request_id}"
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    converter = DataConverter(payload_codec=EncryptedPayloads(read_codec_keys(tmp_path)))
    async with a_client(temporal.address, data_converter=converter) as opener:
        found = await told(opener, workflow_id)

    assert "Berry" not in str(history.events)
    assert found is not None
    assert found.started_with["event"]["data"]["patient"]["last_name"] == "Berry"
    assert found.signals == [("asked", found.started_with)]


async def test_what_the_server_cannot_take_is_parked(temporal: TemporalServer, request_id: str, tmp_path: Path) -> None:
    (tmp_path / "current").write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
    # A control character takes six bytes in JSON, and one in the record.
    patient = {"first_name": "\x01" * 400_000, "last_name": "Berry"}
    event = an_event("renewal.requested", id="evt_1", request_id=request_id, patient=patient)
    given = options(temporal, payload="full", codec_key_dir=str(tmp_path))
    async with running(open_workflow, options=given) as consumer:
        await consumer.feed(event)

        assert await consumer.parked() == [Parked("rx_1", "evt_1", "too_large")]


async def test_a_balancer_that_cuts_each_connection_while_its_server_is_away_parks_nothing(
    temporal: TemporalServer, request_id: str
) -> None:
    """Once it was connected, the library does not say UNAVAILABLE of it."""
    port = free_port()
    events = [
        an_event("renewal.requested", key=f"rx_{number}", request_id=f"{request_id}-{number}") for number in range(30)
    ]
    async with (
        proxies({1: (port, int(temporal.address.rpartition(":")[2]))}) as balancer,
        running(open_workflow, options=options(temporal, address=f"{HOST}:{port}")) as consumer,
    ):
        await consumer.feed(events[0])
        balancer[1].make_trouble(to_broker=Trouble(reset_after_bytes=1))
        balancer[1].reset_all()
        consumer.offer(*events[1:])
        opened = partial(consumer.registry.get_sample_value, "drxbridge_circuit_state", OPEN)
        await until(lambda: bool(opened() or consumer.count("parked")))
        balancer[1].make_trouble()
        await consumer.settled()

        assert await consumer.parked() == []
        assert counted(consumer, "ok") == len(events)


async def test_without_tls_only_where_that_is_allowed(temporal: TemporalServer, request_id: str) -> None:
    """The server has no TLS: a handshake fails, and nothing is said in clear."""
    event = an_event("renewal.requested", request_id=request_id)
    async with running(open_workflow, options={"address": temporal.address, "timers": "off"}) as consumer:
        consumer.offer(event)
        await until(lambda: counted(consumer, "unreachable") > 0)

        assert counted(consumer, "ok") == 0
        assert await consumer.parked() == []


@asynccontextmanager
async def behind_tls(temporal: TemporalServer, context: ssl.SSLContext) -> AsyncIterator[str]:
    host, port = temporal.address.split(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await reader.read(65_536):
                writer.write(part)
        writer.close()

    pipes: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(host, int(port))
        writers.extend((writer, downstream))
        pipes.extend(asyncio.create_task(copy(*each)) for each in ((reader, downstream), (upstream, writer)))

    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(connected, host, 0, ssl=context)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for each in writers:
            each.transport.abort()
        async with asyncio.timeout(HANG_S):
            await asyncio.gather(*pipes)


async def test_a_server_that_wants_a_certificate_gets_it(
    temporal: TemporalServer, client: Client, request_id: str, tmp_path: Path
) -> None:
    context, authority = self_signed(tmp_path)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    tls_dir = tmp_path / "tls"
    tls_dir.mkdir()
    for name, source in (
        ("ca.crt", authority),
        ("tls.crt", tmp_path / "chain.pem"),
        ("tls.key", tmp_path / "chain.pem"),
    ):
        (tls_dir / name).write_bytes(source.read_bytes())
    async with behind_tls(temporal, context) as address:
        given = {"address": address, "tls_dir": str(tls_dir), "timers": "off"}
        async with running(open_workflow, options=given) as consumer:
            await consumer.feed(an_event("renewal.requested", request_id=request_id))

            assert counted(consumer, "ok") == 1
    assert await told(client, f"renewal:drx:{request_id}") is not None


async def test_timers_need_the_read_model_in_the_same_database() -> None:
    with pytest.raises(ConfigError, match=r"this database has no read_model\.overdue"):
        async with running(open_workflow, options={"address": f"{HOST}:{free_port()}", "allow_plaintext": "true"}):
            pass
