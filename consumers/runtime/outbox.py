"""Publish records of handlers: stored in the transaction that settles their event, then written to Kafka in order.

A handler's `context.publish` puts a row into `drx_consumer.outbox` in the transaction that settles its event: exactly
once, and not at all when that is rolled back. The process that owns the partition the event was read from writes its
rows to Kafka by their ids and deletes what all in-sync replicas have: at least once, and in order what the events of
one key have published. A repeat has the same `drx_outbox` header, which `context.publish` gives.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bridge.errors import NotDurableError, TransientError
from bridge.kafka.record import Record
from bridge.kafka.routing import partition
from bridge.kafka.transport import Place
from bridge.runtime.logging import log
from consumers.postgres.pool import Database
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.partition import Partitions

# Rows of one turn; a few batches of a producer.
ROWS = 500
# Without news from handlers of this process: for rows that an owner before left, and a topic that was missing.
POLL_S = 1.0

_WAITING = """
select id, topic, key, value, headers::text as headers, extract(epoch from published_at)::float8 as published_at
from drx_consumer.outbox
where grp = $1 and (source_topic, source_part) in (select * from unnest($2::text[], $3::int[])) and topic <> all($4)
order by id limit $5
"""
_DELETE = "delete from drx_consumer.outbox where grp = $1 and id = any($2::bigint[])"
_STANDING = """
select count(*), coalesce(extract(epoch from clock_timestamp() - min(published_at)), 0)::float8
from drx_consumer.outbox where grp = $1
"""


class Producer(Protocol):
    """Writes to Kafka, as the ingress does."""

    def partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has; None while that is not known."""

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write as many records as one batch holds; return how many all replicas have.

        Raises:
            NotDurableError: Not written, or not known to be.
        """


class _Row(NamedTuple):
    id: int
    record: Record


class Outbox:
    """Writes the rows of the partitions that this process owns."""

    def __init__(
        self, *, database: Database, producer: Producer, group: str, metrics: ConsumerMetrics, published: asyncio.Event
    ) -> None:
        """Write by `producer`, soon after `published` was set."""
        self._database = database
        self._producer = producer
        self._group = group
        self._metrics = metrics
        self._reason: tuple[str, str] | None = None
        self._published = published

    async def work(self, partitions: Partitions) -> None:
        """Write until cancelled; rows that Kafka does not take are retried."""
        while True:
            self._published.clear()
            try:
                full = await self._turn([each.place for each in partitions.opened()])
            except TransientError:  # settling meets the same outage, and logs it
                full = False
            if not full:
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._published.wait()
                except TimeoutError:
                    continue

    async def _turn(self, places: Sequence[Place]) -> bool:
        """Write the oldest rows; True when there may be more that can be written now."""
        reasons: set[tuple[str, str]] = set()
        while True:
            # A topic that takes nothing now may have more rows waiting than a turn holds: the others are looked for
            # without it.
            found = await self._waiting(places, {topic for _, topic in reasons})
            new = await self._write_all(found)
            reasons |= new
            if not new or len(found) < ROWS:
                break
        self._say(reasons)
        return len(found) == ROWS and not new

    async def _waiting(self, places: Sequence[Place], stuck: Collection[str]) -> Sequence[Mapping[str, Any]]:
        """Return the oldest rows of other topics than `stuck`, and report how many there are of all."""
        async with self._database.transaction() as connection:
            columns = [each.topic for each in places], [each.partition for each in places]
            found = await connection.fetch(_WAITING, self._group, *columns, list(stuck), ROWS)
            waiting, age_s = tuple(await connection.fetchrow(_STANDING, self._group))
        self._metrics.outbox_records.labels(self._metrics.service).set(waiting)
        self._metrics.outbox_oldest_age.labels(self._metrics.service).set(age_s)
        return found

    async def _write_all(self, found: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
        """Write rows; return why some of them stay, with their topics."""
        batches: defaultdict[tuple[str, int], list[_Row]] = defaultdict(list)
        reasons: set[tuple[str, str]] = set()
        for row in found:
            count = self._producer.partitions(row["topic"])
            if count is None:
                reasons.add(("topic_missing", row["topic"]))
            else:
                made = self._record(row, count)
                batches[made.topic, made.partition].append(_Row(row["id"], made))
        for (topic, number), rows in batches.items():
            code = await self._write(topic, number, rows)
            if code:
                reasons.add((code, topic))
        return reasons

    async def _write(self, topic: str, number: int, rows: Sequence[_Row]) -> str:
        """Write the rows of one partition in order; return why some of them stay, or an empty string."""
        code, left = "", list(rows)
        try:
            while left:
                written = await self._producer.write(topic, number, [row.record for row in left])
                done, left = left[:written], left[written:]
                async with self._database.transaction() as connection:
                    await connection.execute(_DELETE, self._group, [row.id for row in done])
                self._metrics.outbox_published.labels(self._metrics.service, topic).inc(written)
        except NotDurableError as exc:
            code = exc.code
        return code

    def _record(self, row: Mapping[str, object], partitions: int) -> Record:
        key: bytes | None = row["key"]  # type: ignore[assignment]  # the driver's rows are untyped
        headers: Mapping[str, str] = json.loads(str(row["headers"]))
        named = [(name, text.encode()) for name, text in headers.items()]
        # Records without a key have no order, so any partition will do.
        number = int(str(row["id"])) % partitions if key is None else partition(key, partitions)
        topic, value = str(row["topic"]), row["value"]
        timestamp_ms = int(float(str(row["published_at"])) * 1000)
        return Record(topic, number, key, value, named, timestamp_ms)  # type: ignore[arg-type]  # a record may have no key

    def _say(self, reasons: Collection[tuple[str, str]]) -> None:
        """Log a reason to wait once, until it is another, and when there is none any more."""
        reason = min(reasons, default=None)
        if reason == self._reason:
            return
        if reason is None:
            log.info("worker.outbox_resumed", group=self._group)
        else:
            code, topic = reason
            log.warning("worker.outbox_waits", group=self._group, code=code, topic=topic)
        self._reason = reason
