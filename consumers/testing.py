"""Test a consumer without a broker: create events of any type, run the real runtime, and check the outcomes.

A handler can also be called directly, with `a_context`, and `Statements` instead of a database.

    async def test_a_renewal_is_noted_once() -> None:
        renewal = an_event("renewal.requested", key="rx_1")
        async with running(consumer) as desk:
            await desk.feed(renewal, renewal)

            assert await desk.fetch("select event_type from refill_desk.noted") == [("renewal.requested",)]
            assert (desk.count("applied"), desk.count("duplicate")) == (1, 1)

Only Kafka is replaced. Records are encoded and decoded as in production, and the runtime is that of `drx-consumer run`.
The database is a real PostgreSQL, started once per test process and emptied for each `running`. Delays between attempts
are a twentieth of the usual delays. Needs the extra `drx-bridge[dev]`.
"""

import asyncio
import atexit
import json
import shutil
import tempfile
import types
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache, wraps
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from prometheus_client import CollectorRegistry
from pydantic import AwareDatetime, ValidationError

from bridge.avro.codec import Codec
from bridge.avro.event_decoder import open_decoder
from bridge.avro.schema_ids import RECORDS
from bridge.contract.envelope import VERSION
from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import ContractRecord
from bridge.dev.ports import free_port
from bridge.dev.postgres import PostgresServer
from bridge.dev.programs import find_postgres
from bridge.errors import ConfigError
from bridge.event import Delivery, Event
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.record import event_record
from bridge.kafka.routing import RoutingTable
from bridge.registry.address import RegistryAddress
from bridge.registry.loader import bundled
from consumers.api import OUTBOX_HEADER, Batches, Consumer, Context, Outgoing, Placed, Setup, build, takes_setup
from consumers.postgres.migrate import migrate_tables
from consumers.postgres.pool import Database, open_database
from consumers.runtime import operator, parking
from consumers.runtime.ledger import Ledger
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.operator import By
from consumers.runtime.processor import Processor
from consumers.runtime.start_checks import prepare

WHEN = datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)
SOURCE = "drx"
# Seconds. A record is settled in milliseconds, and five attempts take one second; longer means a hanging handler or
# sink.
SETTLED_S = 15.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # the example of W3C Trace Context
_POLL_S = 0.01
_POOL_SIZE = 8
_APPLICATION = "drx-consumer test"
_PLAIN: Mapping[Any, object] = {
    bool: True,
    int: 1,
    Decimal: Decimal(1),
    date: WHEN.date(),
    datetime: WHEN,
    AwareDatetime: WHEN,
    dict[str, str]: {},
}
_numbers = count(1)
# DSNs of databases that are not in use.
_idle: list[str] = []


def an_event(event_type: str, *, key: str = "rx_1", id: str = "", at: datetime = WHEN, **fields: object) -> Event:  # noqa: A002 - as handlers name it
    """Return a valid event of a type; required fields that are not given get plain values.

    Args:
        event_type: Such as `renewal.requested`.
        key: Record key; the prescription id, except for `prescriber.enrollment_changed` and `system.ping`.
        id: Event id; a new one unless given.
        at: When it happened and was received, aware UTC.
        fields: Fields of the record by their names in the schema; a nested record as a mapping. An unknown enum value
            is given as the bridge writes it: `shipment_status="UNKNOWN"`, `raw_shipment_status="lost"`.

    Raises:
        ValueError: The type is unknown, or a field is invalid (`pydantic.ValidationError`).
    """
    model = EVENT_MODELS.get(event_type)
    if model is None:
        raise ValueError(f"no such event type: {event_type!r}")
    own = {
        "event_id": id or f"evt_{next(_numbers)}",
        "event_type": event_type,
        "contract_version": VERSION,
        "occurred_at": at,
        "received_at": at,
        "source": SOURCE,
        "environment": "sandbox",
        "account_id": "acct_1",
        # The record key, and the field of native DRx that it comes from.
        **({"prescriber": {"id": key}} if event_type == "prescriber.enrollment_changed" else {}),
        "prescription_id": None if event_type in {"prescriber.enrollment_changed", "system.ping"} else key,
    }
    try:
        value = model.model_validate(_fitting(model, own | fields)).model_dump()
    except ValidationError as exc:
        for error in exc.errors():
            if error["type"] == "literal_error":
                name = error["loc"][-1]
                exc.add_note(f"For a value unknown to {name}, pass {name}='UNKNOWN' and raw_{name}='…'.")
        raise
    return Event(value["event_id"], event_type, value["source"], key, value["occurred_at"], value["received_at"], value)


class Statements:
    """Replaces `Context.connection` when a handler is called directly: keeps its statements, executes none."""

    def __init__(self) -> None:
        self.executed: list[tuple[str, tuple[object, ...]]] = []

    async def execute(self, query: str, *values: object) -> str:
        """Keep a statement, and return as if it had changed one row."""
        self.executed.append((query, values))
        return f"{query.split(maxsplit=1)[0].upper()} 1"


def a_context(connection: object = None, *, attempt: int = 1, resource: object = None) -> Context:
    """Return a context for calling a handler directly."""
    where = {"group": "test", "topic": "test", "partition": 0, "offset": 0, "ordinal": "test:0"}
    return Context(**where, attempt=attempt, connection=connection, resource=resource, traceparent=TRACEPARENT)  # type: ignore[arg-type]  # of two types


class Attempt(NamedTuple):
    """One attempt at an event: `attempt` counts from 1, and does not increase while the called service is away."""

    event_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked record: the first of its key has the code of its failure, later ones `key_parked`."""

    key: str
    event_id: str
    code: str
    # Exception of the handler and its origin, such as `KeyError at refill_desk.consumer:31`; not compared.
    raised: str = field(default="", compare=False)


@dataclass(slots=True)
class Running:
    """A running consumer with one partition of each of its topics.

    Methods that wait raise `TimeoutError` after `SETTLED_S`.
    """

    calls: list[Attempt]  # every call of the handler, in order, including those that failed because a service was away
    registry: CollectorRegistry  # metrics of the process, the consumer's own included
    _consumer: Consumer
    _processor: Processor
    _work: asyncio.Task[None]
    _database: Database
    _resource: object
    _ends: dict[TopicPartition, int]

    async def feed(self, *events: Event) -> None:
        """Offer records to the consumer and wait until each is applied, a duplicate, skipped or parked."""
        self.offer(*events)
        await self.settled()

    def offer(self, *events: Event) -> None:
        """Offer records to the consumer, each at the next offset of its topic."""
        for event in events:
            tp = self._place(event)
            offset, self._ends[tp] = self._ends[tp], self._ends[tp] + 1
            self._processor.offer(tp, [_record(event, tp, offset)])

    async def settled(self) -> None:
        """Wait until all offered records are settled."""
        async with asyncio.timeout(SETTLED_S):
            while any(self._processor.next_offset(tp) != end for tp, end in self._ends.items()):
                if self._work.done():
                    self._work.result()
                await asyncio.sleep(_POLL_S)

    async def release(self, key: str) -> None:
        """Release a parked key as an operator does; wait until it is no longer parked, or parked again."""
        asked = parking.Filters(keys=[key])
        await operator.request_release(self._database, self._consumer.group, asked, by=By("consumers.testing"))
        async with asyncio.timeout(SETTLED_S):
            # The database has no event to wait for.
            while any(  # noqa: ASYNC110 - as above
                each["release_requested_at"]
                for each in await parking.list_parked(self._database, self._consumer.group, asked)
            ):
                await asyncio.sleep(_POLL_S)

    async def parked(self) -> list[Parked]:
        """Return the parked records, in order."""
        query = """
select key, event_id, code, coalesce(raised, '') from drx_consumer.parked_event
where grp = $1 order by topic, part, "offset"
"""
        return [Parked(*row) for row in await self.fetch(query, self._consumer.group)]

    def count(self, outcome: str) -> int:
        """Return the number of records `applied`, `duplicate` or `parked`; `retry` counts failed attempts.

        A call that fails because the service is away (`TransientError(systemic=True)`, 503, a time-out) does not count:
        see `calls`.
        """
        return sum(
            int(sample.value)
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "drxbridge_consumer_records_total" and sample.labels["outcome"] == outcome
        )

    async def published(self) -> list[Outgoing]:
        """Return the records published by handlers, in order, without the runtime's own header; none is in Kafka."""
        query = """
select topic, key, value, (headers - $2::text)::text from drx_consumer.outbox where grp = $1 order by id
"""
        rows = await self.fetch(query, self._consumer.group, OUTBOX_HEADER)
        return [Outgoing(topic, key, value, json.loads(headers)) for topic, key, value, headers in rows]

    async def run_jobs(self) -> None:
        """Run every job of the consumer once, each in its own transaction."""
        for job in self._consumer.jobs:
            async with self._database.transaction(calls_services=True) as connection:
                await job.once(connection, self._resource)

    async def fetch(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        """Run a statement on the consumer's database and return its rows."""
        async with self._database.transaction() as connection:
            return [tuple(row) for row in await connection.fetch(query, *args)]

    def _place(self, event: Event) -> TopicPartition:
        topic = RoutingTable().topic_of_event(event)
        return TopicPartition(topic if TopicPartition(topic, 0) in self._ends else self._consumer.topics[0], 0)


@asynccontextmanager
async def running(
    consumer: Consumer | Callable[[Setup], Consumer] | Callable[[], Consumer],
    *,
    options: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Run a consumer, or the one that its entry point builds from `options`, on an empty database with its tables."""
    if options and not takes_setup(consumer):
        raise ConfigError("options need an entry point that takes a Setup; this one takes none")
    registry = CollectorRegistry()
    built: Consumer = build(consumer, Setup(options or {}, registry))
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(_empty_database())
        await migrate_tables(database, built)
        await prepare(database, built)
        calls: list[Attempt] = []
        resource = None if built.around is None else await stack.enter_async_context(built.around())
        processor = Processor(
            consumer=_watched(built, calls).within(_POOL_SIZE),
            database=database,
            ledger=Ledger(database, group=built.group, cluster_id="test"),
            decoder=await stack.enter_async_context(open_decoder(RegistryAddress())),
            metrics=ConsumerMetrics(registry, service=built.group),
            resource=resource,
            spread=lambda low, high: low / 20,  # noqa: ARG005 - the smallest delay
            release_poll_s=2 * _POLL_S,
        )
        stop = asyncio.Event()
        work = asyncio.create_task(processor.run(stop))
        tps = [TopicPartition(topic, 0) for topic in built.topics]
        try:
            for tp in tps:
                await processor.adopt(tp)
                processor.start(tp, 0)
            ends = dict.fromkeys(tps, 0)
            yield Running(calls, registry, built, processor, work, database, resource, ends)
        finally:
            await processor.drain(tps, timeout_s=1.0)
            processor.forget(tps)
            stop.set()
            await work


def _watched(consumer: Consumer, calls: list[Attempt]) -> Consumer:
    """Return the consumer with a handler that records each attempt and then calls the real one."""
    handle: Any = consumer.handle
    if handle is None:
        raise ConfigError(f"consumer {consumer.name!r} has no handler")

    @wraps(handle)
    async def one(event: Event, context: Context) -> None:
        calls.append(Attempt(event.id, context.attempt))
        await handle(event, context)

    @wraps(handle)
    async def many(batch: Sequence[Placed], connection: Any) -> None:
        calls.extend(Attempt(event.id, context.attempt) for event, context in batch)
        await handle(batch, connection)

    return replace(consumer, handle=many if isinstance(consumer.mode, Batches) else one)


def _record(event: Event, tp: TopicPartition, offset: int) -> ConsumedRecord:
    """Return an event as the ingress writes it."""
    digest = sha256(event.to_json().encode()).hexdigest()
    delivery = Delivery(event.source, "sandbox", event.id, event.received_at, b"", digest, "current", TRACEPARENT, {})
    schema = RECORDS[event.type]
    record = event_record(
        event,
        delivery,
        topic=tp.topic,
        partition=tp.partition,
        value=_codec().encode(schema, event.value),
        schema=schema,
        ordinal=b"test:%d" % offset,
    )
    return ConsumedRecord(*tp, offset, record.timestamp_ms, record.key, record.value, record.headers)


def _fitting(model: type[ContractRecord], given: Mapping[str, object]) -> dict[str, object]:
    """Return `given` with a plain value for every required field that is missing."""
    hints = get_type_hints(model)
    fields: dict[str, object] = dict(given)
    for name, info in model.model_fields.items():
        kind = _bare(hints[name])
        if name in given:
            value = given[name]
            if isinstance(value, Mapping) and isinstance(kind, type) and issubclass(kind, ContractRecord):
                fields[name] = _fitting(kind, value)
        elif info.is_required():
            fields[name] = _plain(kind, name)
    return fields


def _plain(kind: Any, name: str) -> object:
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is list:
        return []
    if isinstance(kind, type) and issubclass(kind, ContractRecord):
        return _fitting(kind, {})
    return _PLAIN.get(kind, name)


def _bare(hint: Any) -> Any:
    """Return the type of an annotation without size, PHI class and `None`."""
    if get_origin(hint) in {Union, types.UnionType}:
        return _bare(next(each for each in get_args(hint) if each is not types.NoneType))
    return hint


@asynccontextmanager
async def _empty_database() -> AsyncIterator[Database]:
    """Open an empty database, a different one for each consumer that runs at the same time."""
    dsn = _idle.pop() if _idle else await _another_database()
    try:
        async with open_database(dsn, size=_POOL_SIZE, application_name=_APPLICATION) as database:
            async with database.transaction() as connection:
                query = "select nspname from pg_namespace where nspname !~ '^pg_|^information_schema$'"
                for (schema,) in await connection.fetch(query):
                    await connection.execute(f'drop schema "{schema}" cascade')
                await connection.execute("create schema public")
            yield database
    finally:
        _idle.append(dsn)


async def _another_database() -> str:
    server, name = await asyncio.to_thread(_server), f"running_{next(_numbers)}"
    async with open_database(server.dsn, size=1, application_name=_APPLICATION) as database:
        await database.fetch(f"create database {name}")
    return f"{server.dsn.rpartition('/')[0]}/{name}"


@cache
def _codec() -> Codec:
    lock = bundled()
    return Codec(schemas=lock.schemas(), ids=lock.ids())


@cache
def _server() -> PostgresServer:
    """Start the database server of this process; it ends with the process."""
    directory = Path(tempfile.mkdtemp(prefix="drx-consumer-"))
    server = PostgresServer(
        directory / "postgres",
        programs=find_postgres(),
        port=free_port(),
        log=directory / "postgres.log",
        # A killed server loses nothing without fsync: its writes are in the page cache.
        settings={"fsync": "off", "full_page_writes": "off"},
    )

    def end() -> None:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)

    atexit.register(end)
    server.start()
    server.wait_ready()
    return server
