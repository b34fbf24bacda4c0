"""Publish records of handlers: stored by the transaction that settles their event, then written to Kafka in order.

A handler's `context.publish` inserts a row into `drx_consumer.outbox` in the transaction that settles its event:
exactly once, and not at all if that is rolled back. The process that owns the event's partition writes the rows to
Kafka in the order of their ids, and deletes those that all in-sync replicas have. So each record is written at least
once, and in order for events of one key. A repeat has the same `drx_outbox` header, set by `context.publish`.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.errors import NotDurableError, TransientError
from bridge.kafka.consumed_record import TopicPartition
from bridge.kafka.record import Record
from bridge.kafka.routing import partition
from bridge.runtime.logging import log
from consumers.postgres.pool import Database
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.partition import Partitions

# Rows read at a time: a few producer batches.
ROWS = 500
# Seconds between two queries without new records: for rows of an earlier owner, and for missing topics.
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


class OutboxProducer(Protocol):
    """Writes to Kafka like the ingress."""

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic; None while unknown."""

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write the records that fit one batch; return how many are acknowledged, or raise `NotDurableError`."""


@dataclass(kw_only=True, eq=False, repr=False)
class Outbox:
    """Writes the rows of the partitions that this process owns."""

    database: Database
    producer: OutboxProducer
    group: str
    metrics: ConsumerMetrics
    published: asyncio.Event  # set when there are new rows
    _reason: tuple[str, str] | None = None

    async def work(self, partitions: Partitions) -> None:
        """Write until cancelled; rows that Kafka does not accept are retried."""
        while True:
            self.published.clear()
            with suppress(TransientError):  # settling meets the same outage, and logs it
                await self._write_waiting(partitions)
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self.published.wait()

    async def _write_waiting(self, partitions: Partitions) -> None:
        """Write the oldest rows, until no more can be written now."""
        stuck: dict[str, str] = {}  # by topic, why it accepts nothing; excluded from the next query
        while True:
            were_stuck = len(stuck)
            found = await self._waiting([each.tp for each in partitions.opened()], list(stuck))
            batches: defaultdict[tuple[str, int], list[tuple[int, Record]]] = defaultdict(list)
            for row in found:
                count = self.producer.partitions(row["topic"])
                if count is None:
                    stuck[row["topic"]] = "topic_missing"
                else:
                    record = _record(row, count)
                    batches[record.topic, record.partition].append((row["id"], record))
            for (topic, number), rows in batches.items():
                try:
                    await self._write(topic, number, rows)
                except NotDurableError as exc:
                    stuck[topic] = exc.code
            if len(found) < ROWS:
                break
            if stuck and len(stuck) == were_stuck:  # writing others takes long: retry these meanwhile
                self._report_stuck(stuck)
                stuck.clear()
        self._report_stuck(stuck)

    def _report_stuck(self, stuck: Mapping[str, str]) -> None:
        self._report(min(((code, topic) for topic, code in stuck.items()), default=None))

    async def _waiting(self, tps: Sequence[TopicPartition], stuck: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        """Return the oldest rows of topics other than `stuck`, and report the number of all rows."""
        async with self.database.transaction() as connection:
            columns = [each.topic for each in tps], [each.partition for each in tps]
            found: Sequence[Mapping[str, Any]] = await connection.fetch(_WAITING, self.group, *columns, stuck, ROWS)
            waiting, age_s = tuple(await connection.fetchrow(_STANDING, self.group))
        self.metrics.outbox_records.set(waiting)
        self.metrics.outbox_oldest_age.set(age_s)
        return found

    async def _write(self, topic: str, number: int, rows: Sequence[tuple[int, Record]]) -> None:
        """Write the rows of one partition in order, and delete the acknowledged ones."""
        while rows:
            written = await self.producer.write(topic, number, [record for _, record in rows])
            await self.database.fetch(_DELETE, self.group, [row_id for row_id, _ in rows[:written]])
            rows = rows[written:]
            self.metrics.outbox_published.labels(self.metrics.service, topic).inc(written)

    def _report(self, reason: tuple[str, str] | None) -> None:
        """Log the reason why a topic waits when it changes or ends."""
        if reason == self._reason:
            return
        self._reason = reason
        if reason is None:
            log.info("worker.outbox_resumed", group=self.group)
        else:
            log.warning("worker.outbox_waits", group=self.group, code=reason[0], topic=reason[1])


def _record(row: Mapping[str, Any], partitions: int) -> Record:
    key, headers = row["key"], json.loads(row["headers"])
    named = [(name, text.encode()) for name, text in headers.items()]
    # Records without a key have no order, so any partition is right.
    number = row["id"] % partitions if key is None else partition(key, partitions)
    return Record(row["topic"], number, key, row["value"], named, int(row["published_at"] * 1000))
