"""The public port over a real socket, with a controlled publisher."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from bridge.dev.ports import free_port
from bridge.errors import NotDurableError
from bridge.event import Delivery, Durable, Event, Identity, ParkReason
from bridge.ingress.call import Call, FastPath, Source
from bridge.ingress.deduplicator import Deduplicator
from bridge.ingress.delivery_limits import AddressLimit, Admission
from bridge.ingress.responses import ROUTE, Observations, Responses
from bridge.ingress.webhooks import Webhooks
from bridge.known.known_ids import KnownIds
from bridge.mapping import drx_standard
from bridge.mapping.lookup import load_profile
from bridge.proof.scheme import FixedSecrets
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.runtime import http_server
from bridge.runtime.http_server import ClientConnection, HardenedServer
from bridge.runtime.logging import configure_logging, output
from bridge.runtime.metrics import IngressMetrics
from bridge.runtime.sockets import accept_all
from tests.builders import a_body, a_slot, signed_headers
from tests.fast_path_cases import fast_path as fast_path_of
from tests.logs import capture_logs
from tests.ports import listens
from tests.unit.mapping_files import ACME, compiled
from tests.waiting import until

Outcome = tuple[Event, ...] | ParkReason
BODY_MAX = 262_144


@dataclass
class ScriptedPublisher:
    """Stores deliveries; waits for `gate` and fails as set in `failures`."""

    published: list[tuple[Delivery, Outcome]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    dedupe: KnownIds = field(default_factory=lambda: KnownIds(windows_s={"drx": 86_400}, capacity=1000))
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, delivery: Delivery, outcome: Outcome) -> Durable:
        self.waiting.set()
        await self.gate.wait()
        failure = self.failures.pop(0) if self.failures else None
        for identity in identities(delivery, outcome):
            self.dedupe.settled(identity, "failed" if failure else "committed")
        if failure:
            raise failure
        self.published.append((delivery, outcome))
        return "committed"


def identities(delivery: Delivery, outcome: Outcome) -> list[Identity]:
    if isinstance(outcome, ParkReason):
        return [Identity(delivery.source, delivery.id, delivery.body_sha256, outcome.reason)]
    return [Identity(event.source, event.id, delivery.body_sha256) for event in outcome]


@dataclass
class Ingress:
    port: int
    publisher: ScriptedPublisher
    metrics: IngressMetrics
    admission: Admission
    server: HardenedServer
    stop: asyncio.Event
    task: asyncio.Task[None]
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ended(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("drxbridge_http_connections_ended_total", {"reason": reason}) or 0

    async def post(
        self,
        body: bytes | None = None,
        *,
        path: str = "/webhooks/drx",
        headers: dict[str, str] | None = None,
        webhook_id: str = "evt_1",
    ) -> tuple[int, dict[str, Any]]:
        given = a_body(id=webhook_id) if body is None else body
        sent = signed_headers(given, webhook_id=webhook_id) if headers is None else headers
        async with self.session.post(self.url + path, data=given, headers=sent) as answer:
            return answer.status, await answer.json()

    def feed(self, request: bytes) -> ClientConnection:
        """Send a request on a new connection; requests of one turn of the loop are handled together."""
        connection, transport = self.server(), StubTransport()
        transport.closed = connection.connection_lost
        connection.connection_made(transport)
        connection.data_received(request)
        return connection

    async def raw(self, request: bytes, *, eof: bool = True) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        if eof:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 30)  # a bound on a hang, not a claim about time
        finally:
            writer.close()


class Exploding:
    """A profile with a bug whose text holds a value of the delivery."""

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Any:
        del delivery
        raise KeyError(document)


class StubTransport(asyncio.Transport):
    """A connection whose other end has just spoken."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.closed: Callable[[Exception | None], None] | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def write(self, data: object) -> None:
        del data

    def abort(self) -> None:
        self.close()

    def close(self) -> None:
        if self.closed and not self.aborted:
            asyncio.get_running_loop().call_soon(self.closed, None)
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


def a_source(name: str = "drx", *, profile: Any = None, scheme: Any = None, secrets: Any = None, **of: Any) -> Source:
    """A source that signs as Standard Webhooks, unless it is said otherwise."""
    profile, scheme = profile or load_profile("drx_standard"), scheme or StandardWebhooks()
    return Source(name, "sandbox", profile, scheme, secrets or FixedSecrets((a_slot(),)), **of)


@contextlib.asynccontextmanager
async def running(
    *,
    count_max: int = 64,
    read_timeout_s: float = 10,
    connections_max: int = 1_000,
    reading_max_bytes: int = 1 << 24,
    profile: Any = None,
    fast_path: FastPath | None = None,
    deduplicator: Deduplicator | None = None,
    sources: Sequence[Source] = (),
    address_limit: AddressLimit | None = None,
    now: Callable[[], float] = time.time,
    tracing: Any = None,
) -> AsyncIterator[Ingress]:
    """Run one; with `deduplicator` deliveries go there instead of the scripted publisher.

    The default of `sources` is `drx`, with signatures of Standard Webhooks.
    """
    port, metrics = free_port(), IngressMetrics(CollectorRegistry())
    publisher = ScriptedPublisher()
    publisher.gate.set()
    publisher.dedupe.finished = True
    sources = sources or [a_source(profile=profile, fast_path=fast_path)]
    admission = Admission(count_max=count_max, bytes_max=1 << 20)
    webhooks = Webhooks(
        sources={each.name: each for each in sources},
        deduplicator=deduplicator or Deduplicator(publisher=publisher, known_ids=publisher.dedupe, deadline_s=4),
        admission=admission,
        observations=Observations(metrics, sources=[each.name for each in sources], deadline_s=4.0),
        body_max_bytes=BODY_MAX,
        newest=publisher.dedupe.newest,
        address_limit=address_limit,
        tracing=tracing,
        now=now,
    )
    server = HardenedServer(
        webhooks,
        read_timeout_s=read_timeout_s,
        port=port,
        drain_s=5,
        body_max_bytes=BODY_MAX,
        connections_max=connections_max,
        reading_max_bytes=reading_max_bytes,
        on_malformed=webhooks.malformed,
        on_ended=lambda why: metrics.http_connections_ended.labels(why).inc(),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(server.run(stop))
    await until(lambda: listens(port))
    async with aiohttp.ClientSession() as session:
        try:
            yield Ingress(port, publisher, metrics, admission, server, stop, task, session)
        finally:
            stop.set()
            publisher.gate.set()
            await task


def request_bytes(body: bytes, headers: Iterable[tuple[str, str]], path: str = "/webhooks/drx") -> bytes:
    """A whole request as a client that is no library would send it."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def genuine(webhook_id: str = "evt_1", **changes: str) -> bytes:
    body = a_body(id=webhook_id, **changes)
    return request_bytes(body, signed_headers(body, webhook_id=webhook_id).items())


@pytest.fixture
async def ingress() -> AsyncIterator[Ingress]:
    async with running(fast_path=fast_path_of("drx", "sandbox")) as one:
        yield one


async def test_answers_200_only_after_the_publisher_is_done(ingress: Ingress) -> None:
    ingress.publisher.gate.clear()
    answer = asyncio.create_task(ingress.post())
    await ingress.publisher.waiting.wait()
    assert not answer.done()

    ingress.publisher.gate.set()

    assert await answer == (200, {"outcome": "accepted", "id": "evt_1"})
    delivery, events = ingress.publisher.published[0]
    assert delivery.body == a_body()
    assert isinstance(events, tuple)
    assert [event.key for event in events] == ["rx_1"]


async def test_answers_503_with_retry_after_when_nothing_is_durable(ingress: Ingress) -> None:
    ingress.publisher.failures.append(NotDurableError("deadline"))
    body = a_body()

    async with ingress.session.post(f"{ingress.url}/webhooks/drx", data=body, headers=signed_headers(body)) as answer:
        assert answer.status == 503
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert await answer.json() == {"outcome": "unavailable", "code": "deadline"}


async def test_a_source_may_have_200_for_what_is_parked() -> None:
    """Some vendors take no other status as an acknowledgement, and send again for ever."""
    async with running(sources=[a_source(answer_200=True)]) as ingress:
        assert await ingress.post(b"[]") == (200, {"outcome": "parked", "id": "evt_1", "reason": "malformed_json"})


async def test_parks_the_exact_bytes_of_what_is_no_event(ingress: Ingress) -> None:
    body = b'\xef\xbb\xbf{"id": 1}'

    assert await ingress.post(body) == (202, {"outcome": "parked", "id": "evt_1", "reason": "malformed_json"})

    delivery, park = ingress.publisher.published[0]
    assert delivery.body == body
    assert isinstance(park, ParkReason)
    assert (park.detail, delivery.headers["webhook-id"]) == ("bom", "evt_1")
    assert "webhook-signature" not in delivery.headers


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"type": "CANARY of two words"}, "/type"),
        ({"data_prescription_id": ""}, "/data/prescription_id"),
        ({"data_patient": {"CANARY": 1, "date_of_birth": "CANARY"}}, "/data/patient/last_name"),
        ({"data_CANARY": 1, "timestamp": "CANARY"}, "/timestamp"),
    ],
)
async def test_a_sender_is_told_which_field_is_at_fault_and_nothing_that_only_its_body_says(
    ingress: Ingress, changes: dict[str, Any], field: str
) -> None:
    status, answer = await ingress.post(a_body(**changes))

    assert (status, answer["outcome"], answer["field"]) == (202, "parked", field)
    assert "CANARY" not in str(answer)


async def test_parks_what_a_bug_of_ours_cannot_map() -> None:
    async with running(profile=Exploding()) as ingress:
        with capture_logs() as lines:
            status, answer = await ingress.post()

        assert (status, answer["reason"]) == (202, "unexpected")
        assert len(ingress.publisher.published) == 1
        assert [line["reason"] for line in lines if line["event"] == "worker.failed"] == ["delivery_parked"]
        assert "prescription_id" not in str(lines)  # of the exception's text


def broken_fast_path(_body: bytes, _webhook_id: str, _received_at: datetime) -> Event | None:
    raise KeyError


@pytest.mark.parametrize(
    ("fast_path", "body", "cause"),
    [
        (fast_path_of("drx", "sandbox"), a_body(), None),
        (fast_path_of("drx", "sandbox"), a_body(data_zzz=1), "form"),
        (broken_fast_path, a_body(), "fault"),
    ],
    ids=["answered", "deferred", "failed"],
)
async def test_what_the_fast_path_leaves_is_accepted_by_the_reference_and_counted(
    fast_path: FastPath, body: bytes, cause: str | None
) -> None:
    async with running(fast_path=fast_path) as ingress:
        assert (await ingress.post(body))[0] == 200

        ((_, published),) = ingress.publisher.published
        assert isinstance(published, tuple)
        assert bool(published[0].encoded) == (cause is None)
        for each in ("form", "fault"):
            labels = {"source": "drx", "cause": each}
            counted = ingress.metrics.registry.get_sample_value("drxbridge_fast_path_deferrals_total", labels)
            assert counted == (each == cause)


async def test_a_bug_after_an_event_is_durable_parks_nothing_and_is_counted(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand twice: as an event, and as something that is none."""
    with monkeypatch.context() as broken:
        broken.setattr(Observations, "taken", Exploding().map)
        with capture_logs() as lines:
            answer = await ingress.post()
    again = await ingress.post()

    assert (answer[0], answer[1]["code"]) == (503, "unexpected")
    assert [line["reason"] for line in lines if line["event"] == "worker.failed"] == ["delivery_unanswered"]
    assert (again[0], again[1]["outcome"]) == (200, "duplicate")
    assert len(ingress.publisher.published) == 1
    labels = {"route": ROUTE, "method": "POST", "outcome": "unavailable", "code": "unexpected"}
    assert ingress.metrics.registry.get_sample_value("drxbridge_http_requests_total", labels) == 1


async def test_is_full_when_the_bound_is_in_flight_and_recovers() -> None:
    async with running(count_max=1) as ingress:
        ingress.publisher.gate.clear()
        first = asyncio.create_task(ingress.post())
        await ingress.publisher.waiting.wait()

        assert await ingress.post() == (503, {"outcome": "unavailable", "code": "admission_full"})

        ingress.publisher.gate.set()
        assert (await first)[0] == 200
        assert (await ingress.post())[0] == 200
        assert (ingress.admission.count, ingress.admission.bytes) == (0, 0)


# Each made to end or to forge a line of the log.
BREAKERS = ('"}\\n{"event":"delivery.accepted"', "\x1b[2J", "\u2028", "%0d%0a", "\\", "'" * 4000)


async def test_no_request_can_end_or_forge_a_line_of_the_log(
    ingress: Ingress, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    configure_logging(level="info", id_key=bytes(32))
    for number, breaker in enumerate(BREAKERS):
        ascii_text = "".join(each if "!" <= each <= "~" else "?" for each in breaker)
        await ingress.post(a_body(**{breaker: breaker}), webhook_id=f"evt_{number}_{ascii_text[:100]}")
        await ingress.post(headers={"user-agent": ascii_text, "webhook-id": ascii_text})
        await ingress.post(path=f"/webhooks/{breaker[:50]}")
        await ingress.post(breaker.encode(), webhook_id=f"body_{number}")
        await ingress.post(a_body(type=breaker), webhook_id=f"type_{number}")
    assert output.flush()
    lines = capfdbinary.readouterr().out.splitlines(keepends=True)

    assert sum(line.count(b'"event":"delivery.') for line in lines) == 5 * len(BREAKERS)
    assert all(orjson.loads(line)["timestamp"] and len(line) < 8192 for line in lines)
    assert not any(byte < 0x20 or byte > 0x7E for line in lines for byte in line[:-1])


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"", "silent"),
        (b"POST /webhooks/drx HTTP/1.1\r\nHost:", "slow_request"),
        (request_bytes(b"{}", [("Content-Type", "application/json")])[:-1], "slow_request"),
    ],
    ids=["nothing", "head", "body"],
)
async def test_ends_a_connection_whose_head_or_body_does_not_come(
    part: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "TICK_S", 0.05)
    async with running(read_timeout_s=0.1) as ingress:
        with contextlib.suppress(ConnectionResetError):
            assert await ingress.raw(part, eof=False) == b""

        assert ingress.ended(reason) == 1
        assert (ingress.admission.count, ingress.admission.bytes) == (0, 0)
        assert (await ingress.post())[0] == 200


async def test_a_sender_that_hangs_up_does_not_undo_the_delivery(ingress: Ingress) -> None:
    ingress.publisher.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", ingress.port)
    writer.write(genuine())
    await ingress.publisher.waiting.wait()
    # Linger 0 sends a reset; a mere end of sending keeps the connection open for its answer.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: not ingress.server.open_connections)

    ingress.publisher.gate.set()
    await until(lambda: bool(ingress.publisher.published))

    assert ingress.publisher.published[0][0].id == "evt_1"


@pytest.mark.parametrize("kept", [True, False])
async def test_what_arrives_just_before_a_stop_is_answered(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    """On a connection that seems to be idle, or on one that is not accepted yet."""
    with socket.socket() as client:

        def arriving(*given: Any) -> Any:
            if not kept:
                client.connect(("127.0.0.1", ingress.port))
            client.sendall(genuine())
            return accept_all(*given)

        if kept:
            client.connect(("127.0.0.1", ingress.port))
            await until(lambda: ingress.server.open_connections)
        monkeypatch.setattr(http_server, "accept_all", arriving)
        ingress.stop.set()
        await ingress.task

        assert client.recv(1_000).startswith(b"HTTP/1.1 200 ")


async def test_series_stay_constant_whatever_is_sent(ingress: Ingress) -> None:
    body = a_body()
    sent = signed_headers(body)
    await ingress.post()
    await ingress.post(body, path="/webhooks/nobody")
    await ingress.post(body, path="/first")
    await ingress.post(body, headers=sent | {"webhook-signature": "v1,AAAA"})
    await ingress.post(a_body(type="no such type"))
    before = _series(ingress)

    for number in range(60):
        await ingress.post(body, path=f"/p{number}")
        await ingress.post(body, path=f"/webhooks/source{number}")
        await ingress.post(a_body(type=f"type.{number}"))

    assert _series(ingress) == before


@pytest.mark.parametrize("word", ["prescription.sent", "counters.changed"])
async def test_what_an_operator_has_named_is_answered_and_written_nowhere(word: str) -> None:
    """Also a type of the contract, whichever way it would have taken."""
    async with running(sources=[a_source(profile=drx_standard.ignoring(frozenset({word})))]) as ingress:
        with capture_logs() as lines:
            answers = [await ingress.post(a_body(type=word)) for _ in range(2)]
        assert ingress.metrics.source_last_event.labels("drx")._value.get() == 0
        other = await ingress.post(a_body(type="prescription.cancelled"))

    assert answers == [(200, {"outcome": "ignored", "id": "evt_1"})] * 2
    assert [line["event"] for line in lines] == ["delivery.ignored"] * 2
    labels = {"route": "/webhooks/{source}", "method": "POST", "outcome": "ignored", "code": ""}
    assert ingress.metrics.registry.get_sample_value("drxbridge_http_requests_total", labels) == 2
    assert (other[1]["outcome"], len(ingress.publisher.published)) == ("accepted", 1)


async def test_the_words_of_updates_are_told_and_have_a_bounded_number_of_series(ingress: Ingress) -> None:
    for number in range(60):
        answer = await ingress.post(a_body(type=f"type.{number}"), webhook_id=f"evt_{number}")
        assert answer[1]["outcome"] == "accepted"

    assert len([each for each in _series(ingress) if b"other_reported_total" in each]) == 51
    sample = {"source": "drx", "reported_type": "…"}
    assert ingress.metrics.registry.get_sample_value("drxbridge_other_reported_total", sample) == 10
    with capture_logs() as lines:
        await ingress.post(a_body(type="type.61"), webhook_id="evt_61")
    assert (lines[0]["reported_type"], lines[0]["flags"]) == ("type.61", "id_differs")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("photon:prescription:created", "photon:prescription:created"),
        ("prior_authorization.status_changed", "prior_authorization.status_changed"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "other"),
        ("rx/HIV-positive", "other"),
        ("a.b.c.d.e", "other"),
        ("takes_insulin_since_last_year", "other"),
        ("born.1964", "other"),
        ("rx.123", "rx.123"),
    ],
)
async def test_log_and_label_have_a_word_only_if_it_looks_like_a_type(ingress: Ingress, word: str, shown: str) -> None:
    with capture_logs() as lines:
        await ingress.post(a_body(type=word))

    sample = {"source": "drx", "reported_type": shown}
    assert ingress.metrics.registry.get_sample_value("drxbridge_other_reported_total", sample) == 1
    assert lines[0]["reported_type"] == shown
    ((_, outcome),) = ingress.publisher.published
    assert not isinstance(outcome, ParkReason)
    assert outcome[0].value["reported_type"] == word


OF_KIND = ACME.replace("kind", "f.kind").replace("rx.id", "f.rx.id")
XML = a_source(profile=compiled(OF_KIND).reading_xml(), json=False, content_types=(b"text/xml",))
FORM = a_source(profile=compiled(f'form = "f"\n{OF_KIND}'), content_types=(b"application/x-www-form-urlencoded",))


@pytest.mark.parametrize(
    ("source", "good", "bad", "reason", "other"),
    [
        (XML, b"<f><kind>STATE</kind><rx><id>7</id></rx></f>", b"<f>\xff", "malformed_xml", "application/json"),
        (FORM, b"f=%7B%22kind%22:%22STATE%22,%22rx%22:%7B%22id%22:7%7D+%7D", b"f=%7B", "malformed_json", "text/plain"),
        (FORM, b'f={"kind":"STATE","rx":{"id":7}}', b"f={}&f={}", "malformed_form", "text/plain"),
    ],
)
async def test_a_source_of_xml_or_forms_takes_them_and_keeps_byte_for_byte_what_it_cannot_read(
    source: Source, good: bytes, bad: bytes, reason: str, other: str
) -> None:
    kind = source.content_types[0].decode()
    async with running(sources=[source]) as ingress:
        answers = []
        for body, sent_as in ((good, kind), (bad, f"{kind}; charset=utf-8"), (good, other)):
            headers = signed_headers(body, webhook_id="evt_1") | {"content-type": sent_as}
            answers.append(await ingress.post(body, headers=headers))

    outcomes = [(status, answer.get("reason") or answer.get("code")) for status, answer in answers]
    assert outcomes == [(202, "unusable"), (202, reason), (415, "content_type")]
    assert [delivery.body for delivery, _ in ingress.publisher.published] == [good, bad]


@pytest.mark.parametrize(
    ("member", "shown"),
    [
        ({"nickname": 1}, "/data/nickname"),
        ({"lines": [{"lot": 1}]}, "/data/lines"),
        ({"12345678": 1}, "/data/*"),
        ({"Ann Berry": 1}, "other"),
        ({"born_1964": 1}, "other"),
        ({"a/b": 1}, "other"),
    ],
)
async def test_a_new_member_is_counted_by_its_path_if_that_is_made_of_names(
    ingress: Ingress, member: dict[str, object], shown: str
) -> None:
    body = orjson.loads(a_body())
    body["data"] |= member
    await ingress.post(orjson.dumps(body))

    sample = {"event_type": body["type"], "pointer": shown}
    assert ingress.metrics.registry.get_sample_value("drxbridge_extension_fields_total", sample) == 1


async def test_the_paths_of_new_members_have_a_bounded_number_of_series(ingress: Ingress) -> None:
    body = orjson.loads(a_body())
    body["data"] |= {f"new_{number}": 1 for number in range(60)}
    await ingress.post(orjson.dumps(body))

    assert len([each for each in _series(ingress) if b"extension_fields_total" in each]) == 51


def _series(ingress: Ingress) -> list[bytes]:
    lines = generate_latest(ingress.metrics.registry).splitlines()
    return [line.rpartition(b" ")[0] for line in lines if not line.startswith(b"#")]


@pytest.mark.parametrize(
    ("owner", "place"),
    [*((Webhooks, stage) for stage in ("_check", "_verify", "_admit", "_map", "_publish")), (Responses, "accepted")],
)
async def test_a_bug_in_a_stage_costs_the_others_of_the_turn_nothing(
    ingress: Ingress, owner: type[Webhooks | Responses], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All come on connections that are there, so most of them share a turn of the loop, in whatever order."""
    sound = getattr(owner, place)

    def broken(itself: Webhooks | Responses, call: Call, *arguments: Any) -> Any:
        if call.http.body == a_body(id="evt_3"):
            raise KeyError(call.http.body)
        return sound(itself, call, *arguments)

    monkeypatch.setattr(owner, place, broken)
    ids = [f"evt_{number}" for number in range(8)]
    answers = await asyncio.gather(*(ingress.post(webhook_id=name) for name in ids))

    assert [status for status, _ in answers] == [503 if name == "evt_3" else 200 for name in ids]
    assert answers[3][1] == {"outcome": "unavailable", "code": "unexpected"}
    assert (ingress.admission.count, ingress.admission.bytes) == (0, 0)


async def test_deliveries_of_one_turn_are_published_in_the_order_of_their_arrival(ingress: Ingress) -> None:
    """Those of one key must be, and a repeat among them is none of them."""
    for name in ["evt_2", "evt_1", "evt_2", "evt_3"]:
        ingress.feed(genuine(name))
    await until(lambda: len(ingress.publisher.published) == 3 and not ingress.admission.count)

    assert [delivery.id for delivery, _ in ingress.publisher.published] == ["evt_2", "evt_1", "evt_3"]


async def test_takes_a_body_of_exactly_the_limit(ingress: Ingress) -> None:
    body = a_body()
    body = body[:-1] + b" " * (BODY_MAX - len(body)) + body[-1:]

    assert (await ingress.post(body))[0] == 200
