"""Build the consumer `hl7v2`, an entry point of the group `drx_bridge.consumers`."""

from contextlib import aclosing
from datetime import datetime
from importlib.resources import files
from typing import Any

import orjson

from bridge.errors import PermanentError
from bridge.event import Event
from bridge.runtime.logging import log
from consumers.api import Consumer, Context, Lanes, Setup, Tables
from consumers.hl7v2.mapping import News, message, news, note_hl7
from consumers.hl7v2.mllp import CONNECT_S, Hl7Metrics, Link
from consumers.hl7v2.options import NAME, Hl7Options
from consumers.lifecycle.facts import Document, stamp_of
from consumers.lifecycle.whole import shared
from consumers.options import read_options
from consumers.postgres.text import stored_text

MIGRATIONS = files("consumers.hl7v2") / "migrations"
# Maximum held events of one prescription, which are sent within one handler call.
HELD_MANY = 20
# Extra lanes, which use the database while the connections serve others.
_AT_DATABASE = 6
# About 2,700 records read ahead, many times the number in progress; each takes 5 KB of memory.
_WINDOW_BYTES = 8 * 1024 * 1024
# Added to the handler's timeout: a message times out first, so that the receiver counts as unavailable.
_MARGIN_S = 5.0


class MessageSender:
    """The handler: one message per event, with the same bytes again if its transaction was not committed."""

    def __init__(self, options: Hl7Options, *, metrics: Hl7Metrics) -> None:
        self._options = options
        self._metrics = metrics
        schema = options.schema_name(NAME)
        self._load = f"""
            select document, ordered,
              (select array_agg((number, event) order by number) from "{schema}".held where key = $1 and code is null)
            from "{schema}".prescription where key = $1 for update
            """  # noqa: S608 - a validated name
        self._store = f"""
            with noted as (
              insert into "{schema}".sent (key, control_id, source, event_id, kind)
              select $1, * from unnest($4::text[], $5::text[], $6::text[], $7::text[])
              on conflict (control_id) do nothing
            )
            insert into "{schema}".prescription as p (key, document, ordered) values ($1, $2, $3)
            on conflict (key) do update set document = excluded.document, ordered = excluded.ordered,
              updated_at = clock_timestamp()
            """  # noqa: S608 - as above
        self._hold = f'insert into "{schema}".held (key, event) values ($1, $2)'  # noqa: S608 - as above
        self._refuse = f'update "{schema}".held set code = $2 where number = $1'  # noqa: S608 - as above
        self._release = f'delete from "{schema}".held where key = $1 and code is null'  # noqa: S608 - as above

    async def __call__(self, event: Event, context: Context) -> None:
        """Send the message of one event (errors: `consumers.hl7v2.mllp`), or hold it until its patient is known."""
        if not self._options.wants_account(event):
            return
        if stored_text(event.key) != event.key:
            raise PermanentError("bad_key")
        connection: Any = context.connection
        found = await connection.fetch(self._load, event.key)
        text, ordered, held = found[0] if found else ("{}", False, None)
        document: Document = orjson.loads(text)
        note_hl7(document, event, stamp_of(event))
        sent: list[tuple[str, str, str, str]] = []
        # Imported events update the state but are not sent.
        new = [] if context.origin == "import" and self._options.imports == "skip" else [(None, event)]
        if shared(document, "patient") is not None or self._options.no_patient == "send":
            for number, each in [*((number, _restored(stored, event)) for number, stored in held or ()), *new]:
                content = news(each, document, self._options, ordered=ordered)
                if content is None:
                    continue
                try:
                    sent.append(await self._send(each, content, document, context.resource))
                except PermanentError as exc:
                    if number is None:
                        raise
                    await self._refused(number, exc, connection)
                    continue
                ordered = ordered or content.ordered
            if held:
                await connection.execute(self._release, event.key)
        elif new and news(event, document, self._options, ordered=ordered) is not None:
            await self._without_patient(event, connection)
        columns = [*zip(*sent, strict=True)] or [()] * 4
        await connection.execute(self._store, event.key, orjson.dumps(document).decode(), ordered, *columns)

    async def _send(self, event: Event, content: News, document: Document, link: Link) -> tuple[str, str, str, str]:
        """Send one message; return its control id, the source and id of its event, and its kind."""
        made = message(event, content, document, self._options)
        await link.send(made.text, control_id=made.control_id)
        self._metrics.dropped.inc(made.dropped)
        return made.control_id, stored_text(event.source), stored_text(event.id), made.kind

    async def _refused(self, number: int, exc: PermanentError, connection: Any) -> None:
        """Keep a held event that is permanently refused; its record was settled and cannot be parked."""
        log.warning("worker.held_refused", code=exc.code)
        self._metrics.refused.inc()
        await connection.execute(self._refuse, number, exc.code)

    async def _without_patient(self, event: Event, connection: Any) -> None:
        if self._options.no_patient == "park":
            raise PermanentError("no_patient")
        await connection.execute(self._hold, event.key, _stored(event))
        self._metrics.waiting.inc()


def open_hl7v2(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = read_options(Hl7Options, NAME, setup.options)
    group, schema = options.group(NAME), options.schema_name(NAME)
    metrics = Hl7Metrics(setup.registry, service=group)
    consumer = Consumer(
        NAME,
        options.topics,
        # More lanes than connections: while one waits for an acknowledgement, others use the database.
        mode=Lanes(options.connections + _AT_DATABASE, transactional=True, window_bytes=_WINDOW_BYTES),
        handler_timeout_s=(HELD_MANY + 1) * options.ack_timeout_s + 2 * CONNECT_S + _MARGIN_S,
        group=group,
        tables=Tables(migrations=MIGRATIONS, schema=schema),
        around=lambda: aclosing(Link(options, metrics)),
        ping=Link.ping,
        discloses=[
            f"whole messages{', in clear' if options.allow_plaintext else ''}: sent to {options.host}:{options.port}",
            f"patients and content of orders, in clear: tables of the schema {schema} of this database",
        ],
    )
    consumer.handler(MessageSender(options, metrics=metrics))
    return consumer


def _stored(event: Event) -> str:
    """Return a held event as JSON, without its extensions, which messages do not contain."""
    return event._replace(value={**event.value, "extensions": {}}).to_json()


def _restored(text: str, later: Event) -> Event:
    """Return a held event; `later` is another event of its key."""
    value = orjson.loads(text)
    return later._replace(
        id=value["event_id"],
        type=value["event_type"],
        source=value["source"],
        occurred_at=datetime.fromisoformat(value["occurred_at"]),
        received_at=datetime.fromisoformat(value["received_at"]),
        value=value,
    )
