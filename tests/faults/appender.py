"""Consumers whose effects are not idempotent: repeated or misordered applications stay visible."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from bridge.errors import PermanentError
from bridge.event import Event
from consumers.api import Batches, Consumer, Context, Lanes, Placed, Setup
from consumers.postgres.pool import Connection

NAME = "appender"
# Without a constraint that would hide a second application.
TABLES = ("create table appended (number bigserial, prescription_id text, event_id text)", "create table healed ()")
APPEND = "insert into appended (prescription_id, event_id) values ($1, $2)"
# Small, so that there are many transactions to be killed in.
BATCH_RECORDS = 20
LANES = 4


def appender(setup: Setup) -> Consumer:
    """Build it.

    Options: `topic`, `group`, `mode` (`batches`, `lanes`, or `outside`: lanes whose effect is a call of `sink`),
    `pause_s` (for each event, inside its transaction), `refused` (a key that is refused until `healed` holds a row)
    and `sink` (none, or the URL to which each event is posted first).
    """
    options = setup.options
    lanes = Lanes(LANES, transactional=options["mode"] != "outside")
    mode = Batches(BATCH_RECORDS) if options["mode"] == "batches" else lanes
    consumer = Consumer(NAME, topics=[options["topic"]], mode=mode, group=options["group"])
    service = _Service(options.get("sink", ""), consumer.group)
    consumer.around, consumer.ping = service.session, service.ping
    pause_s, refused = float(options["pause_s"]), options["refused"]

    async def append(event: Event, connection: Connection) -> None:
        if event.key == refused and not await connection.fetchval("select exists (select from healed)"):
            raise PermanentError("refused")
        await connection.execute(APPEND, event.key, event.id)

    async def append_batch(batch: Sequence[Placed], connection: Connection) -> None:
        for event, context in batch:
            await service.tell(event, context.resource)
            await append(event, connection)
        await asyncio.sleep(pause_s * len(batch))

    async def append_one(event: Event, context: Context) -> None:
        await service.tell(event, context.resource)
        if context.connection is not None:
            await append(event, context.connection)
        await asyncio.sleep(pause_s)

    if options["mode"] == "batches":
        consumer.handler(append_batch)
    else:
        consumer.handler(append_one)
    return consumer


class _Service:
    """Calls a service as a team would, without translating errors; without a URL it does nothing."""

    def __init__(self, url: str, group: str) -> None:
        self._url = url
        self._group = group

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            yield session

    async def ping(self, session: aiohttp.ClientSession) -> None:
        if self._url:
            async with session.get(self._url, raise_for_status=True):
                pass

    async def tell(self, event: Event, session: aiohttp.ClientSession) -> None:
        if self._url:
            said = {"group": self._group, "key": event.key, "id": event.id}
            async with session.post(self._url, json=said, raise_for_status=True):
                pass
