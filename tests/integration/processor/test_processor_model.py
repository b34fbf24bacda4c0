"""Whatever happens to a consumer, each event is applied once and in order, and only events at fault are parked.

A program is drawn: records come, some of them repeats or unreadable; handlers fail, what they write to is away, the
database refuses, processes are killed, partitions move, the database is put back from a backup, keys are parked by hand
and released. At its end all is healed and released, and the effects are compared with the log.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigError, DecodeError, PermanentError, TransientError
from bridge.event import Event
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.api import Batches, Consumer, Lanes
from consumers.postgres.errors import NoConnectionError
from consumers.postgres.pool import Database
from consumers.runtime import operator
from consumers.runtime.ledger import Ledger, Settlement
from consumers.runtime.operator import By
from tests.kafka import HANG_S
from tests.settling import GROUP, PLACE, Bench, Effects, PlainDecoder, a_database, a_record

KEYS = 4
MODES: Mapping[str, Lanes | Batches] = {
    "batches": Batches(5, 0.005),
    "inside": Lanes(3, transactional=True),
    "outside": Lanes(3),
}
# What a record may do: nothing, be refused for good, be a bug, or fail some times as what may be anybody's fault.
FAILURES: Mapping[str, Callable[[int], Exception | None]] = {
    "refused": lambda _: PermanentError("refused"),
    "bug": lambda _: ValueError("Mary Smith"),
    "slow": lambda tried: TransientError("http_500") if tried < 4 else None,
    "away": lambda tried: TransientError("http_503", systemic=True) if tried < 30 else None,
}
# What cannot be read; the id of the last sound record of its key again, with its body, and with another one.
POISON, REPEAT, CONFLICT = "poison", "repeat", "conflict"
GUILTY = {"refused", "bug", POISON, CONFLICT}
KINDS = st.sampled_from(["", "", "", *FAILURES, POISON, REPEAT, CONFLICT])
RECORDS = st.lists(st.tuples(st.integers(1, KEYS), KINDS), min_size=1, max_size=12)
# What may have a handler without a transaction called again for what it has done.
REPEATING = {"kill", "restart", "claim", "restore"}
STEPS = st.lists(
    st.one_of(
        RECORDS,
        st.sampled_from(
            [
                "sink_down",
                "sink_up",
                "refuse",
                "stumble",
                "kill",
                "restart",
                "claim",
                "backup",
                "restore",
                "release",
                "park",
            ]
        ),
        st.sampled_from(["settle", "traffic"]),
    ),
    min_size=1,
    max_size=12,
)
_TABLES = """
select format('%I.%I', schemaname, tablename) from pg_tables
where schemaname = 'drx_consumer' and tablename <> 'schema_migration' or tablename = 'effect'
"""


class RefusingLedger(Ledger):
    refusals: list[tuple[str, TransientError]]

    @asynccontextmanager
    async def begin(self, tp: TopicPartition, epoch: int, known: datetime | None = None) -> AsyncIterator[Settlement]:
        when, failure = self.refusals.pop() if self.refusals else ("", None)
        if failure is not None and when == "before":
            raise failure
        async with super().begin(tp, epoch, known) as settlement:
            yield settlement
            if failure is not None:
                raise failure


class Decoder(PlainDecoder):
    def __init__(self, unreadable: set[int]) -> None:
        super().__init__()
        self._unreadable = unreadable

    def decode(self, record: ConsumedRecord) -> Event:
        if record.offset in self._unreadable:
            raise DecodeError("malformed")
        return super().decode(record)


class World:
    """One partition, its database and the process that owns it.

    Attributes:
        kinds: What each record of the log is.
        last: Id of the last sound record of each key.
        repeats: Whether a handler without a transaction may be called again for what it has done.
    """

    def __init__(self, database: Database, mode: Lanes | Batches) -> None:
        self.database = database
        self.log: list[ConsumedRecord] = []
        self.kinds: list[str] = []
        self.failing: dict[str, str] = {}
        self.unreadable: set[int] = set()
        self.last: dict[int, str] = {}
        self.repeats = False
        self.effects = Effects()
        self.effects.fail = self._fail
        self.consumer = Consumer(GROUP, [PLACE.topic], mode=mode, ping=self.effects.ping)
        self.consumer.handler(self.effects.batch if isinstance(mode, Batches) else self.effects.one)
        self.ledger = RefusingLedger(database, group=GROUP, cluster_id="here")
        self.ledger.refusals = []
        self.backup: dict[str, list[Any]] = {}
        self.bench: Bench

    def _fail(self, event: Event, tried: int) -> Exception | None:
        return FAILURES[self.failing[event.id]](tried) if event.id in self.failing else None

    async def start(self) -> None:
        self.bench = Bench(self.consumer, self.database, Decoder(self.unreadable), ledger=self.ledger)
        self.bench.task = asyncio.create_task(self.bench.processor.run(self.bench.stop))
        await self.feed()

    async def feed(self) -> None:
        """Have the partition claimed, and read from where it stands."""
        while True:
            with suppress(TransientError):
                return await self.bench.feed(self.log)

    async def read(self) -> None:
        assert not self.bench.failed
        if self.bench.processor.fenced(PLACE):
            self.bench.processor.forget([PLACE])
            await self.feed()

    async def write(self, records: list[tuple[int, str]]) -> None:
        for key, kind in records:
            offset = len(self.log)
            again = kind in {REPEAT, CONFLICT} and key in self.last
            event_id = self.last[key] if again else f"evt_{offset}"
            body = "another" if again and kind == CONFLICT else ""
            self.log.append(a_record(offset, f"rx_{key}", id=event_id, body=body))
            self.kinds.append(kind if again or kind not in {REPEAT, CONFLICT} else "")
            if not self.kinds[-1]:
                self.last[key] = event_id
            elif kind in FAILURES:
                self.failing[event_id] = kind
            elif kind == POISON:
                self.unreadable.add(offset)
        self.bench.processor.offer(PLACE, self.log[-len(records) :])

    async def kill(self) -> None:
        assert self.bench.task is not None
        self.bench.task.cancel()
        await asyncio.wait([self.bench.task])
        await self.start()

    async def restart(self) -> None:
        await self.end()
        await self.start()

    async def end(self) -> None:
        assert self.bench.task is not None
        await self.bench.processor.drain([PLACE], timeout_s=0.2)
        self.bench.processor.forget([PLACE])
        self.bench.stop.set()
        await self.bench.task

    async def claim(self) -> None:
        """Have another process claim the partition, and lose it at once."""
        await Ledger(self.database, group=GROUP, cluster_id="here").claim(PLACE)

    async def sink_down(self) -> None:
        self.effects.down = True

    async def sink_up(self) -> None:
        self.effects.down = False

    async def refuse(self) -> None:
        """Let the database fail the next transactions, each way that is no fault of a record."""
        failures = [TransientError("statement_timeout"), TransientError("deadlock"), NoConnectionError("no_connection")]
        for when in ("before", "after"):
            self.ledger.refusals += [(when, failure) for failure in failures * 3]

    async def stumble(self) -> None:
        self.ledger.refusals.append(("after", TransientError("deadlock")))

    async def traffic(self) -> None:
        """Have sound records come one by one, so that others pass between two attempts at one that fails."""
        for number in range(3 * KEYS):
            await self.write([(number % KEYS + 1, "")])
            await self.settle()
            await self.read()

    async def release(self) -> None:
        await self.bench.rows("update drx_consumer.parked_key set release_requested_at = clock_timestamp() returning 1")

    async def park(self) -> None:
        with suppress(ConfigError):
            await operator.park(self.database, GROUP, PLACE.topic, "rx_1", partition=0, by=By("ann", "a drill"))

    async def take_backup(self) -> None:
        await self._sql("drop schema if exists backup cascade", "create schema backup")
        for number, table in enumerate(await self.tables()):
            await self._sql(f"create table backup.t{number} as table {table}")
        self.backup = {"at": []}

    async def restore(self) -> None:
        """Put the copies back, and write a record, by which the process finds out."""
        if self.backup:
            tables = await self.tables()
            await self._sql(
                "set local session_replication_role = replica",
                f"truncate {', '.join(tables)}",
                *(
                    f"insert into {table} overriding system value select * from backup.t{number}"  # noqa: S608 - ours
                    for number, table in enumerate(tables)
                ),
            )
        await self.write([(1, "")])

    async def settle(self) -> None:
        await asyncio.sleep(0.02)

    async def tables(self) -> list[str]:
        return sorted(name for (name,) in await self.bench.rows(_TABLES))

    async def _sql(self, *statements: str) -> None:
        async with self.database.transaction() as connection:
            for statement in statements:
                await connection.execute(statement)

    async def innocents(self) -> list[int]:
        """Offsets of the records that were parked for a failure and are not at fault."""
        rows = await self.bench.rows('select "offset" from drx_consumer.parked_event where class <> $1', "behind")
        return [offset for (offset,) in rows if self.kinds[offset] not in GUILTY]

    async def heal(self) -> None:
        self.effects.down = False
        self.ledger.refusals.clear()
        await self.write([(key, "") for key in range(1, KEYS + 1)])
        async with asyncio.timeout(HANG_S):
            while self.bench.processor.next_offset(PLACE) != len(self.log):
                await self.read()
                await asyncio.sleep(0.01)
        innocents = await self.innocents()
        assert innocents == []
        self.failing.clear()
        self.unreadable.clear()
        skipped: list[int] = []
        async with asyncio.timeout(HANG_S):
            while await self.bench.rows("select from drx_consumer.parked_key"):
                await self.release()
                await self.bench.until_rows(
                    "select key from drx_consumer.parked_key where release_requested_at is not null", []
                )
                skipped += await self.skip_conflicts()
        assert sorted(skipped) == [offset for offset, kind in enumerate(self.kinds) if kind == CONFLICT]

    async def skip_conflicts(self) -> list[int]:
        query = "select key, \"offset\" from drx_consumer.parked_event where code = 'id_conflict'"
        rows = await self.bench.rows(query)
        for key, offset in rows:
            await operator.give_up(self.database, GROUP, PLACE.topic, key, offset=offset, by=By("ann", "another body"))
        return [offset for _, offset in rows]

    async def check(self) -> None:
        applied = await self.bench.effects() if self.consumer.transactional else self.effects.applied
        if not self.consumer.transactional and self.repeats:
            applied = list(dict.fromkeys(applied))
        sound = [
            (record.key, record.header("ce_id"))
            for record, kind in zip(self.log, self.kinds, strict=True)
            if kind not in {REPEAT, CONFLICT}
        ]
        for number in range(1, KEYS + 1):
            of_key = [event_id for key, event_id in sound if key == b"rx_%d" % number]
            assert [event_id for event_id in applied if event_id in of_key] == of_key
        assert sorted(applied) == sorted(event_id for _, event_id in sound)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(mode=st.sampled_from(sorted(MODES)), steps=STEPS)
async def test_each_event_is_applied_once_and_in_order_whatever_happens(
    ledger_dsn: str, mode: str, steps: list[Any]
) -> None:
    async with a_database(ledger_dsn) as database:
        world = World(database, MODES[mode])
        world.repeats = not REPEATING.isdisjoint(step for step in steps if isinstance(step, str))
        async with database.transaction() as connection:
            await connection.execute("truncate effect, drx_consumer.progress, drx_consumer.inbox, drx_consumer.settled")
            await connection.execute("truncate drx_consumer.parked_event, drx_consumer.parked_key")
            await connection.execute("truncate drx_consumer.park_breaker, drx_consumer.outbox")
        await world.start()
        try:
            for step in steps:
                await world.read()
                name = "take_backup" if step == "backup" else step
                await (world.write(step) if isinstance(step, list) else getattr(world, name)())
            await world.heal()
            await world.check()
        finally:
            await world.end()
