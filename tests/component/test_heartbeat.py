"""A heartbeat is a delivery like any other, and only Kafka's word counts for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import orjson
import pytest
from prometheus_client import Gauge

from bridge.dev.ports import free_port
from bridge.ingress.heartbeat import SOURCE, Heartbeat
from bridge.ingress.profiles.profile import Mapped
from bridge.ingress.proof import Raw
from bridge.runtime.http import HardenedServer, Request
from bridge.runtime.messages import Answer
from tests.logs import capture_logs
from tests.unit.profile_documents import a_delivery

HANG_S = 60.0
NOW = 1_790_000_000.0


class Sender:
    """A heartbeat and the server that it posts to, which gives the answers that are set."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.received: list[tuple[dict[bytes, bytes], bytes]] = []
        self.arrived = asyncio.Event()
        self.clock = NOW
        self.seen = Gauge("seen", "…", registry=None)
        self.port = free_port()
        self.heart = Heartbeat(
            host="0.0.0.0",  # noqa: S104 - what a pod listens on
            port=self.port,
            environment="sandbox",
            account_id="heartbeat-here",
            every_s=0.01,
            timeout_s=HANG_S,
            seen=self.seen,
            now=lambda: self.clock,
        )

    def check(self, _request: Request) -> None:
        """Have the body come."""

    def take(self, requests: Sequence[Request]) -> None:
        for request in requests:
            assert (request.method, request.path) == ("POST", f"/webhooks/{SOURCE}")
            self.received.append(({name.lower(): value for name, value in request.raw_headers}, request.body))
            self.clock += 1
            self.arrived.set()
            request.answer(Answer(self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0], b"{}"))

    async def beats(self, number: int) -> None:
        """Return when `number` beats were answered and judged, which is when the next one is here."""
        async with asyncio.timeout(HANG_S):
            while len(self.received) <= number:
                self.arrived.clear()
                await self.arrived.wait()


@contextlib.asynccontextmanager
async def beating(*statuses: int, listening: bool = True) -> AsyncIterator[Sender]:
    sender, stop = Sender(list(statuses)), asyncio.Event()
    server = HardenedServer(sender, read_timeout_s=HANG_S, port=sender.port, drain_s=1)
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as tasks:
        if listening:
            tasks.create_task(server.run(stop))
        tasks.create_task(sender.heart.run(stop))
        yield sender
        stop.set()


async def test_it_is_signed_and_holds_an_event() -> None:
    async with beating(200) as sender:
        await sender.beats(1)

    heads, body = sender.received[0]
    source = sender.heart.source
    proved = source.scheme.prove(Raw(heads, body), source.secrets.keys, NOW)
    at = datetime.fromtimestamp(NOW, UTC)
    delivery = a_delivery(body, id=proved.id or "", received_at=at)._replace(source=SOURCE)
    mapped = source.profile.map(delivery, orjson.loads(body))
    assert isinstance(mapped, Mapped)
    (event,) = mapped.events
    assert (event.type, event.key, event.source, event.occurred_at) == ("system.ping", "heartbeat-here", SOURCE, at)
    assert (mapped.flags, mapped.extensions) == ((), 0)


async def test_one_that_kafka_has_is_seen() -> None:
    async with beating(200, 503) as sender:
        assert sender.seen._value.get() == NOW
        await sender.beats(2)

        assert sender.seen._value.get() == NOW + 1


@pytest.mark.parametrize("status", [202, 401, 503])
async def test_one_that_is_only_on_disk_or_nowhere_is_not_seen_and_told_of_once(status: int) -> None:
    with capture_logs() as lines:
        async with beating(status) as sender:
            await sender.beats(3)

    assert sender.seen._value.get() == NOW
    assert [(line["event"], line["code"]) for line in lines] == [("worker.heartbeat_failed", f"status_{status}")]
