"""A heartbeat is an ordinary delivery, and counts only once Kafka has it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import web
from prometheus_client import Gauge

from bridge.ingress.heartbeat import SOURCE, Heartbeat
from bridge.mapping.profile import Mapped
from bridge.proof.scheme import Raw
from tests.endpoint import an_endpoint
from tests.logs import capture_logs
from tests.unit.profile_documents import a_delivery
from tests.waiting import HANG_S, until

NOW = 1_790_000_000.0


class Sender:
    """A heartbeat and its server, with the responses that a test sets; each takes a second."""

    heart: Heartbeat

    def __init__(self, statuses: tuple[int, ...]) -> None:
        self.statuses = list(statuses)
        self.received: list[Raw] = []
        self.clock = NOW
        self.seen = Gauge("seen", "…", registry=None)

    async def take(self, request: web.BaseRequest) -> web.Response:
        assert (request.method, request.path) == ("POST", f"/webhooks/{SOURCE}")
        self.received.append(Raw({name.lower(): value for name, value in request.raw_headers}, await request.read()))
        self.clock += 1
        return web.Response(status=self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])

    async def beats(self, number: int) -> None:
        """Return when `number` beats were answered and judged, which is when the next one is here."""
        await until(lambda: len(self.received) > number)


@contextlib.asynccontextmanager
async def beating(*statuses: int) -> AsyncIterator[Sender]:
    sender, stop = Sender(statuses), asyncio.Event()
    async with an_endpoint(sender.take) as url, asyncio.TaskGroup() as tasks:
        sender.heart = Heartbeat(
            host="0.0.0.0",  # noqa: S104 - what a pod listens on
            port=urlsplit(url).port or 0,
            environment="sandbox",
            account_id="heartbeat-here",
            every_s=0.01,
            timeout_s=HANG_S,
            seen=sender.seen,
            now=lambda: sender.clock,
        )
        tasks.create_task(sender.heart.run(stop))
        yield sender
        stop.set()


async def test_it_is_signed_and_holds_an_event() -> None:
    async with beating(200) as sender:
        await sender.beats(1)

    raw, source = sender.received[0], sender.heart.source
    proved = source.scheme.verify(raw, source.secrets.keys, NOW)
    at = datetime.fromtimestamp(NOW, UTC)
    delivery = a_delivery(raw.body, id=proved.id or "", received_at=at)._replace(source=SOURCE)
    mapped = source.profile.map(delivery, orjson.loads(raw.body))
    assert isinstance(mapped, Mapped)
    (event,) = mapped.events
    assert (event.type, event.key, event.source, event.occurred_at) == ("system.ping", "heartbeat-here", SOURCE, at)
    assert (mapped.flags, mapped.extensions) == ((), ())


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
