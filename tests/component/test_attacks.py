"""Attacks of clients without a secret on the public port, which genuine senders must not notice."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator

import pytest

from bridge.dev.ports import HOST
from bridge.mapping import drx_standard
from tests.builders import a_body, signed_headers
from tests.component.test_ingress import BODY_MAX, Ingress, a_source, genuine, request_bytes, running
from tests.waiting import until

HEAD = (
    b"POST /webhooks/drx HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % BODY_MAX
)
SENT_AHEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000
UNREAD_MAX = 65_536


@pytest.fixture(autouse=True)
def _ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.runtime.http_server.TICK_S", 0.05)


@contextlib.asynccontextmanager
async def attacking(ingress: Ingress, *sent: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Hold a connection for each of `sent`."""
    opened = [await asyncio.open_connection(HOST, ingress.port) for _ in sent]
    for (_, writer), each in zip(opened, sent, strict=True):
        writer.write(each)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the server closed the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 60)  # a bound on a hang, not a claim about time
    except ConnectionResetError:
        return b""


async def test_bodies_that_are_declared_and_do_not_come_take_nobodys_room() -> None:
    """The admission of `running` holds four such bodies."""
    async with running(count_max=8) as ingress, attacking(ingress, *[HEAD] * 32):
        await until(lambda: ingress.server.open_connections >= 32)

        assert (await ingress.post())[0] == 200
        assert (ingress.admission.count, ingress.admission.bytes) == (0, 0)


async def test_forged_deliveries_of_one_turn_take_nobodys_room() -> None:
    async with running(count_max=1) as ingress:
        body = a_body()
        forged = request_bytes(body, (signed_headers(body) | {"webhook-id": "evt_2"}).items())
        for sent in (forged, forged, genuine()):
            ingress.feed(sent)
        await until(lambda: ingress.admission.count == 0 and len(ingress.publisher.published) == 1)


async def test_of_bodies_that_come_in_part_the_oldest_is_ended() -> None:
    part = HEAD + b" " * (BODY_MAX // 2)
    async with running(reading_max_bytes=BODY_MAX) as ingress, attacking(ingress, part) as first:
        await until(lambda: ingress.server.held_bytes >= BODY_MAX // 2)
        async with attacking(ingress, part, part):
            assert await ended(first[0]) == b""
            await until(lambda: ingress.server.held_bytes <= BODY_MAX)

            assert (await ingress.post(b" " * (BODY_MAX - 500)))[0] == 202
            assert (ingress.ended("bodies_full") >= 1, ingress.ended("slow_request")) == (True, 0)

    assert ingress.server.held_bytes == 0


async def test_a_client_that_never_reads_is_not_answered_into_memory() -> None:
    async with running(read_timeout_s=0.5) as ingress:
        with socket.create_connection((HOST, ingress.port)) as attacker:
            attacker.settimeout(0)
            peak = 0

            async def send() -> None:
                for _ in range(4_000):
                    await asyncio.get_running_loop().sock_sendall(attacker, SENT_AHEAD)

            sending = asyncio.create_task(send())
            while not sending.done():
                transports = [each.transport for each in ingress.server.connections if each.transport]
                peak = max(peak, *(each.get_write_buffer_size() for each in transports), 0)
                await asyncio.sleep(0.01)
            with pytest.raises(ConnectionError):
                sending.result()

        assert peak <= UNREAD_MAX
        assert ingress.ended("unread_answer") == 1
        assert (await ingress.post())[0] == 200


async def test_the_oldest_of_too_many_strangers_makes_room() -> None:
    async with running(connections_max=4) as ingress:
        assert (await ingress.post())[0] == 200  # stays open, and has proved itself
        async with attacking(ingress, *[b""] * 6) as readers:
            for reader in readers[:3]:
                assert await ended(reader) == b""

            assert (await ingress.post(webhook_id="evt_2"))[0] == 200
            assert (ingress.ended("too_many"), ingress.server.open_connections) == (3, 4)


@pytest.mark.parametrize("ids", [["evt_1"] * 8, [f"own_{number}" for number in range(8)]], ids=["captured", "secret"])
async def test_neither_a_captured_delivery_nor_a_secret_shuts_others_out(ids: list[str]) -> None:
    """Each connection makes a verified delivery and then sends half a head, so that none is idle."""
    sent = [genuine(webhook_id) + b"POST" for webhook_id in ids]
    async with running(connections_max=8) as ingress, attacking(ingress, *sent) as attackers:
        for reader in attackers:
            await reader.readuntil(b"}")
        for webhook_id in ("evt_2", "evt_3", "evt_4"):
            async with attacking(ingress, genuine(webhook_id)) as (honest,):
                assert b'"accepted"' in await honest.readuntil(b"}")

        assert ingress.ended("too_many") >= 1


@pytest.mark.parametrize(("sent", "outcome"), [({}, b"duplicate"), ({"type": "system.ping"}, b"ignored")])
async def test_a_connection_with_a_new_delivery_outlasts_those_with_captured_ones(
    sent: dict[str, str], outcome: bytes
) -> None:
    profile = drx_standard.ignoring(frozenset({"system.ping"}))
    captured = genuine("evt_1", **sent)
    async with (
        running(connections_max=4, sources=[a_source(profile=profile)]) as ingress,
        attacking(ingress, genuine("evt_1" if not sent else "evt_2")) as (honest,),
    ):
        assert b'"accepted"' in await honest.readuntil(b"}")
        for _ in range(4):
            async with attacking(ingress, *[captured] * 4) as replays:
                for reader in replays:
                    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                        assert b'"%b"' % outcome in await reader.readuntil(b"}")
        await until(lambda: ingress.server.open_connections == 1)


@pytest.mark.parametrize("seed", range(8))
async def test_requests_are_answered_however_they_are_cut(seed: int) -> None:
    """Framing must not depend on what a read happens to hold: random pieces, some requests sent ahead."""
    rng = random.Random(seed)  # noqa: S311 - no keys
    async with running(count_max=1_000) as ingress, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for connection in range(8):
            group.create_task(_cut(ingress, random.Random(rng.random()), f"{seed}_{connection}"))  # noqa: S311 - as above

        async def publish_slowly() -> None:
            for _ in range(20):
                ingress.publisher.gate.clear()
                await asyncio.sleep(0.001)
                ingress.publisher.gate.set()
                await asyncio.sleep(0.001)

        group.create_task(publish_slowly())
    assert len(ingress.publisher.published) == 8 * 30


async def _cut(ingress: Ingress, rng: random.Random, name: str) -> None:
    """Make 30 deliveries over one connection, one or some at a time, in pieces that may be single bytes."""
    reader, writer = await asyncio.open_connection(HOST, ingress.port)
    ids = [f"evt_{name}_{number}" for number in range(30)]
    while ids:
        taken, ids = ids[: (size := rng.choice((1, 1, 2, 5)))], ids[size:]
        text = b"".join(_request(rng, webhook_id, chunked=size == 1 and rng.random() < 0.5) for webhook_id in taken)
        while text:
            end = rng.choice((1, 3, 50, 400, 5_000, len(text)))
            writer.write(text[:end])
            text = text[end:]
            await writer.drain()
            await asyncio.sleep(0)
        for webhook_id in taken:
            assert f'"accepted","id":"{webhook_id}"'.encode() in await reader.readuntil(b"}")
    writer.close()


def _request(rng: random.Random, webhook_id: str, *, chunked: bool) -> bytes:
    body = a_body(id=webhook_id, padding="x" * rng.choice((0, 10, 3_000, 100_000)))
    headers = signed_headers(body, webhook_id=webhook_id).items()
    if not chunked:
        return request_bytes(body, headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"POST /webhooks/drx HTTP/1.1\r\nHost: x\r\n{lines}Transfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b""
    while body:
        size = rng.choice((1, 7, 1_000, len(body)))
        chunks += b"%x\r\n%b\r\n" % (len(body[:size]), body[:size])
        body = body[size:]
    return head + chunks + b"0\r\n\r\n"
