"""A read model on a test's database, without Kafka: batches go directly to its handler."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from prometheus_client import CollectorRegistry

from bridge.event import Event
from consumers.api import BatchHandler, Consumer, Context, Placed, Setup, Tables
from consumers.postgres.migrate import migrate
from consumers.postgres.pool import Connection, Database, open_database
from consumers.read_model.consumer import MIGRATIONS, open_read_model

TOPIC = "drx.prescriptions.v1"


@dataclass
class ReadModel:
    """One read model; `apply` does what the runtime does with a batch: a transaction around the handler."""

    consumer: Consumer
    database: Database
    schema: str
    registry: CollectorRegistry
    _offsets: Iterator[int] = field(default_factory=count)

    async def apply(self, *events: Event, topic: str = TOPIC) -> None:
        async with self.database.transaction() as connection:
            await self.apply_within(connection, *events, topic=topic)

    async def apply_within(self, connection: Any, *events: Event, topic: str = TOPIC) -> None:
        batch = [Placed(event, self._context(topic)) for event in events]
        await cast("BatchHandler", self.consumer.handle)(batch, connection)

    async def tick(self) -> None:
        for job in self.consumer.jobs:
            async with self.database.transaction() as connection:
                await job.run(connection)

    async def rows(self, query: str, *args: Any) -> list[dict[str, Any]]:
        """Return the rows of a query; `{schema}` in it is replaced."""
        async with self.database.transaction() as connection:
            found: Sequence[Mapping[str, Any]] = await connection.fetch(query.replace("{schema}", self.schema), *args)
        return [dict(row) for row in found]

    async def prescription(self, prescription_id: str = "rx_1") -> dict[str, Any]:
        (row,) = await self.rows("select * from {schema}.prescription where prescription_id = $1", prescription_id)
        return row

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"drxbridge_{name}", labels)

    def _context(self, topic: str) -> Context:
        return Context(self.consumer.group, topic, 0, next(self._offsets), "", 1)


class Interleaved:
    """A connection that runs something else between reading and writing rows."""

    def __init__(self, connection: Connection, between: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._between = between
        self.execute = connection.execute

    async def fetch(self, query: str, *args: object) -> list[Any]:
        """Read, and run the other action if there were rows."""
        found: list[Any] = await self._connection.fetch(query, *args)
        if "facts::text" in query:
            await self._between()
        return found


@asynccontextmanager
async def open_model(dsn: str, *, migrations: Any = MIGRATIONS, **options: str) -> AsyncIterator[ReadModel]:
    registry = CollectorRegistry()
    consumer = open_read_model(Setup(options, registry))
    assert consumer.tables is not None
    async with open_database(dsn, size=4, application_name="test") as database:
        await migrate(database, Tables(migrations, consumer.tables.schema))
        yield ReadModel(consumer, database, consumer.tables.schema, registry)
