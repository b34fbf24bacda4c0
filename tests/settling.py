"""Helpers of the settling tests: a log in memory, a decoder without Avro, a processor on a real database."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from prometheus_client import CollectorRegistry

from bridge.avro.event_decoder import EventDecoder
from bridge.errors import DecodeError, PermanentError, UnknownRecordError
from bridge.event import Event
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.api import Batches, Consumer, Context, Lanes, Placed
from consumers.postgres.pool import Database
from consumers.runtime.decoding import Learner
from consumers.runtime.ledger import Inbox, InboxState, Ledger, Settlement
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.processor import Processor
from tests.kafka import HANG_S, until
from tests.ledger import ledger_database

PLACE = TopicPartition("drx.prescriptions.v1", 0)
GROUP = "tests"
WHEN = datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)
POISON = b"\xffpoison"
# Each way to handle records: in batches, and in lanes inside the settling transaction or outside of it.
ALL_MODES: Mapping[str, Lanes | Batches] = {
    "batches": Batches(50, 0.005),
    "inside": Lanes(4, transactional=True),
    "outside": Lanes(4),
}

EFFECTS = """
create table if not exists effect (
  number bigint generated always as identity, event_id text unique, key text, "offset" bigint
)
"""


def a_record(
    offset: int,
    key: str | None = "rx_1",
    *,
    id: str = "",  # noqa: A002 - the header's name
    type: str = "prescription.sent",  # noqa: A002 - as above
    body: str = "",
    value: bytes | None = None,
    tp: TopicPartition = PLACE,
) -> ConsumedRecord:
    """A record whose event id is `evt_<offset>` unless it is given."""
    event_id = id or f"evt_{offset}"
    given = json.dumps({"id": event_id, "type": type, "body": body}).encode() if value is None else value
    headers = [
        ("ce_id", event_id.encode()),
        ("ce_source", b"drx"),
        ("ce_type", type.encode()),
        ("drx_body_sha256", sha256((body or event_id).encode()).hexdigest().encode()),
        ("drx_ordinal", b"one:%d" % offset),
    ]
    return ConsumedRecord(*tp, offset, 1_789_000_000_000, None if key is None else key.encode(), given, headers)


class PlainDecoder(EventDecoder):
    """Reads records of `a_record`; `answer` is the registry's error for schema 7, None if it knows the schema."""

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.learned = 0
        self.answer: Exception | None = None
        self.known = False

    def decode(self, record: ConsumedRecord) -> Event:
        """Return the event of a record; a value of Confluent's form names schema 7."""
        if record.value == POISON or record.value is None:
            raise DecodeError("malformed")
        if record.value[0] == 0 and not self.known:
            raise DecodeError("unknown_schema_id")
        fields = json.loads(record.value[5:] if record.value[0] == 0 else record.value)
        if fields["type"] in self.unknown:
            raise UnknownRecordError
        return Event(fields["id"], fields["type"], "drx", (record.key or b"").decode(), WHEN, WHEN, fields)

    async def learn(self, record: ConsumedRecord) -> None:
        del record
        self.learned += 1
        await asyncio.sleep(0)
        if self.answer is not None:
            raise self.answer
        self.known = True


def hasty_learner(decoder: PlainDecoder, clock: Callable[[], float] = time.monotonic) -> Learner:
    return Learner(decoder, clock=clock, sleep=lambda _: asyncio.sleep(0.01))


class FailingLedger(Ledger):
    """A ledger with injected failures, which it counts."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, group=GROUP, cluster_id="here")
        self.look_fails: Callable[[list[str]], Exception | None] = lambda _: None  # ids of events
        self.begin_fails: Callable[[TopicPartition], Exception | None] = lambda _: None
        self.commit_fails: Callable[[TopicPartition], Exception | None] = lambda _: None
        self.failed = 0
        self._held: asyncio.Event | None = None

    def hold_commit(self) -> asyncio.Event:
        """Hide the next commit from this process until the event is set."""
        self._held = asyncio.Event()
        return self._held

    async def look(self, entries: Sequence[Inbox]) -> list[InboxState]:
        self._raise(self.look_fails([each.event_id for each in entries]))
        return await super().look(entries)

    @asynccontextmanager
    async def begin(self, tp: TopicPartition, epoch: int, known: datetime | None = None) -> AsyncIterator[Settlement]:
        self._raise(self.begin_fails(tp))
        async with super().begin(tp, epoch, known) as settlement:
            yield settlement
            self._raise(self.commit_fails(tp))
        held, self._held = self._held, None
        if held is not None:
            await held.wait()

    def _raise(self, failure: Exception | None) -> None:
        if failure is not None:
            self.failed += 1
            raise failure


class Effects:
    """A handler that stores what it applies; `fail` returns the exception for an event and number of attempts."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.attempts: list[str] = []
        self.numbers: dict[str, int] = {}  # of the last attempt
        self.applied: list[str] = []
        self.batches: list[list[str]] = []
        self.fail: Callable[[Event, int], BaseException | None] = lambda event, tried: None  # noqa: ARG005 - a hook
        self.down = False
        self.pings = 0
        self.before: Callable[[Event], Awaitable[None]] | None = None

    @property
    def kept(self) -> list[str]:
        """Applied events, each at its last application: earlier ones were rolled back."""
        return list(dict.fromkeys(reversed(self.applied)))[::-1]

    def has(self, event_id: str) -> bool:
        return event_id in self.applied

    async def tried(self, times: int) -> None:
        """Wait for this number of further attempts."""
        before = len(self.attempts)
        await until(lambda: len(self.attempts) >= before + times)

    async def batch(self, placed: Sequence[Placed], connection: Any) -> None:
        self.batches.append([event.id for event, _ in placed])
        for event, context in placed:
            await self._apply(event, context, connection)

    async def one(self, event: Event, context: Context) -> None:
        await self._apply(event, context, context.connection)

    async def ping(self, resource: object) -> None:
        del resource
        self.pings += 1
        if self.down:
            raise ConnectionRefusedError

    async def _apply(self, event: Event, context: Context, connection: Any) -> None:
        tried = self.attempts.count(event.id)
        self.attempts.append(event.id)
        self.numbers[event.id] = context.attempt
        if self.before is not None:
            await self.before(event)
        if connection is not None:
            await connection.execute(
                'insert into effect (event_id, key, "offset") values ($1, $2, $3)',
                *(event.id, event.key, context.offset),
            )
        if self.down:
            raise ConnectionRefusedError
        failure = PermanentError("refused") if event.id in self.refused else self.fail(event, tried)
        if failure is not None:
            raise failure
        self.applied.append(event.id)


class Gate:
    """Stops the handler at some events until it is opened."""

    def __init__(self, effects: Effects, stops: Callable[[Event], bool] = lambda _: True) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._stops = stops
        effects.before = self._wait

    def open(self) -> None:
        self._opened.set()

    async def _wait(self, event: Event) -> None:
        if self._stops(event):
            self.reached.set()
            await self._opened.wait()


def a_consumer(effects: Effects, mode: Lanes | Batches, **changes: Any) -> Consumer:
    consumer = Consumer(GROUP, [PLACE.topic], mode=mode, **changes)
    consumer.handler(effects.batch if isinstance(mode, Batches) else effects.one)
    return consumer


class Bench:
    def __init__(self, consumer: Consumer, database: Database, decoder: PlainDecoder, **options: Any) -> None:
        self.consumer = consumer
        self.database = database
        self.decoder = decoder
        self.registry = CollectorRegistry()
        self.metrics = ConsumerMetrics(self.registry, service=consumer.name)
        self.ledger = options.pop("ledger", None) or Ledger(database, group=consumer.group, cluster_id="here")
        self.processor = Processor(
            consumer=consumer,
            database=database,
            ledger=self.ledger,
            decoder=decoder,
            metrics=self.metrics,
            spread=lambda low, high: low / 20,  # noqa: ARG005 - as little as a delay may be
            release_poll_s=0.02,
            **options,
        )
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def adopt(self, tp: TopicPartition = PLACE) -> int:
        """Claim a partition and expect its records; return the first offset."""
        adoption = await self.processor.adopt(tp)
        offset = adoption.next_offset or 0
        self.processor.start(tp, offset)
        return offset

    async def feed(self, records: Sequence[ConsumedRecord], tp: TopicPartition = PLACE) -> None:
        """Claim a partition and offer its records from its offset on."""
        offset = await self.adopt(tp)
        self.processor.offer(tp, [each for each in records if each.offset >= offset])

    async def feed_all(self, records: Sequence[ConsumedRecord], tp: TopicPartition = PLACE) -> None:
        """Feed, and wait until all of it is settled."""
        await self.feed(records, tp)
        await self.settled(records[-1].offset + 1, tp)

    async def read_again(self, records: Sequence[ConsumedRecord]) -> None:
        """Adopt a partition again, as the reader does when the partition requests it."""
        await until(lambda: self.processor.fenced(PLACE))
        self.processor.forget([PLACE])
        await self.feed(records)
        assert not self.processor.fenced(PLACE)

    async def settled(self, next_offset: int, tp: TopicPartition = PLACE) -> None:
        await until(lambda: self.failed or self.processor.next_offset(tp) == next_offset)
        if self.task is not None and self.task.done():
            self.task.result()

    async def others_pass(self, offset: int, *, parked: int = 1) -> int:
        """Offer sound records one by one until this number of keys is parked; return the next offset."""
        async with asyncio.timeout(HANG_S):
            while len(await self.rows("select 1 from drx_consumer.parked_key")) < parked:
                if self.processor.room(PLACE) and not self.processor.halted(PLACE):
                    self.processor.offer(PLACE, [a_record(offset, f"other_{offset}")])
                    offset += 1
                await asyncio.sleep(0.01)
        return offset

    @property
    def failed(self) -> bool:
        return self.task is not None and self.task.done()

    async def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        async with self.database.transaction() as connection:
            return [tuple(row) for row in await connection.fetch(query, *args)]

    async def until_rows(self, query: str, expected: list[tuple[Any, ...]]) -> None:
        async with asyncio.timeout(HANG_S):
            while await self.rows(query) != expected:  # noqa: ASYNC110 - the database has no event to wait for
                await asyncio.sleep(0.02)

    async def effects(self) -> list[str]:
        return [row[0] for row in await self.rows("select event_id from effect order by number")]

    async def parked(self) -> list[tuple[str, int, str]]:
        return [
            (*row,)
            for row in await self.rows('select key, "offset", code from drx_consumer.parked_event order by "offset"')
        ]

    async def request_release(self, key: str) -> None:
        await self.rows(
            "update drx_consumer.parked_key set release_requested_at = clock_timestamp() where key = $1 returning 1",
            key,
        )

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"drxbridge_{name}", {"service": self.consumer.name, **labels}) or 0.0

    def outcome(self, outcome: str) -> float:
        return self.count("consumer_records_total", topic=PLACE.topic, outcome=outcome)


@asynccontextmanager
async def a_database(dsn: str, *, size: int = 12, **bounds: Any) -> AsyncIterator[Database]:
    async with ledger_database(dsn, size=size, **bounds) as database:
        async with database.transaction() as connection:
            await connection.execute(EFFECTS)
        yield database


@asynccontextmanager
async def at_work(consumer: Consumer, database: Database, **options: Any) -> AsyncIterator[Bench]:
    """Run a processor for the block, and stop it as a reader would."""
    decoder = options.pop("decoder", None) or PlainDecoder()
    bench = Bench(consumer, database, decoder, **options)
    lanes = bench.processor._key_queues._lanes
    free = lanes._value
    bench.task = asyncio.create_task(bench.processor.run(bench.stop))
    try:
        yield bench
    finally:
        tps = [each.tp for each in bench.processor._partitions.all()]
        await bench.processor.drain(tps, timeout_s=0.5)
        bench.processor.forget(tps)
        bench.stop.set()
        await asyncio.wait({bench.task}, timeout=30)
        if bench.task.done() and not bench.task.cancelled():
            bench.task.exception()
            assert lanes._value == free
