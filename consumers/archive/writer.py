"""Applies a batch: its files are staged, then noted in the transaction that settles it; a job publishes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, date
from itertools import groupby
from typing import Any

import pyarrow as pa  # noqa: TID251 - a door: its errors

from bridge.errors import PermanentError
from bridge.event import UNRECOGNIZED_TYPE
from bridge.runtime.failpoints import AFTER_PUBLISH, AFTER_STAGE, BEFORE_STAGE, hit
from consumers.api import Placed
from consumers.archive.columns import Digest, table_of, unrecognized_schema
from consumers.archive.lake import EVENTS, UNRECOGNIZED, Lake, Staged
from consumers.archive.metrics import ArchiveMetrics

_NOTE = """
insert into "{schema}".file (staged, topic, part, first_offset, last_offset, row_count, bytes, sha256, path)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_WAITING = """
select staged, path from "{schema}".file where published_at is null order by committed_at limit $1
"""
_PUBLISHED = """update "{schema}".file set published_at = now() where staged = any($1)"""
_LAKE = """select id::text, exists (select from "{schema}".file) from "{schema}".lake"""
_KNOWN = """select staged from "{schema}".file where staged = any($1)"""
# Some 2 ms each.
_PUBLISH_MAX = 500


def path_of(placed: Sequence[Placed], day: date) -> str:
    """Return the path of the file of events of one partition and day, in the order of the log."""
    (event, first), last = placed[0], placed[-1].context
    table = UNRECOGNIZED if event.type == UNRECOGNIZED_TYPE else f"{EVENTS}/topic={first.topic}"
    name = f"p{first.partition:02d}-{first.offset:012d}-{last.offset:012d}.parquet"
    return f"{table}/received_date={day.isoformat()}/{name}"


def by_day(batch: Sequence[Placed]) -> Iterator[tuple[date, list[Placed]]]:
    """Yield the events of each day of receipt (UTC), in the order of the log."""

    def day(placed: Placed) -> date:
        return placed.event.received_at.astimezone(UTC).date()

    for each, events in groupby(sorted(batch, key=lambda one: (day(one), one.context.offset)), key=day):
        yield each, list(events)


class Writer:
    """The handler of the archive, and what its jobs run; one per process."""

    def __init__(
        self,
        lake: Lake,
        *,
        schema: pa.Schema,
        raw: bool,
        tables: str,
        metrics: ArchiveMetrics,
        digest: Digest | None,
    ) -> None:
        """Write to `lake`; `tables` is the checked name of the schema of its tables."""
        self._lake = lake
        self._schema = schema
        self._raw = raw
        self._metrics = metrics
        self._digest = digest
        self._note = _NOTE.format(schema=tables)
        self._waiting = _WAITING.format(schema=tables)
        self._published = _PUBLISHED.format(schema=tables)
        self._known = _KNOWN.format(schema=tables)
        self._id = _LAKE.format(schema=tables)

    async def prepare(self, connection: Any) -> None:
        """See that the lake is there, and belongs to these tables.

        Raises:
            ConfigError: It does not, or cannot be used.
            TransientError: It is away.
        """
        ((archive, begun),) = await connection.fetch(self._id)
        await asyncio.to_thread(self._lake.claim, archive, begun=begun)

    async def ping(self, _resource: Any) -> None:
        """See that a file can be written."""
        await asyncio.to_thread(self._lake.probe)

    async def __call__(self, batch: Sequence[Placed], connection: Any) -> None:
        """Write events that were never written before, of one partition.

        Raises:
            PermanentError: A value does not fit its column.
            TransientError: The lake does not take the file.
        """
        for day, events in by_day(batch):
            hit(BEFORE_STAGE)
            try:
                staged = await asyncio.to_thread(self._stage, events)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
                # Its message holds the value.
                raise PermanentError("no_column") from exc
            hit(AFTER_STAGE)
            first, last = events[0].context, events[-1].context
            place = first.topic, first.partition, first.offset, last.offset
            size = staged.rows, staged.bytes, staged.sha256
            await connection.execute(self._note, staged.name, *place, *size, path_of(events, day))
            self._metrics.staged(rows=staged.rows, size=staged.bytes)

    def _stage(self, events: Sequence[Placed]) -> Staged:
        if events[0].event.type != UNRECOGNIZED_TYPE:
            return self._lake.stage(table_of(events, self._schema, digest=self._digest))
        if not self._raw:  # it came by a topic that a site has named
            raise PermanentError("raw_not_wanted")
        return self._lake.stage(table_of(events, unrecognized_schema()))

    async def publish(self, connection: Any) -> None:
        """Give every committed file its name."""
        waiting = await connection.fetch(self._waiting, _PUBLISH_MAX)
        done: list[str] = []
        if waiting:
            done = await asyncio.to_thread(self._publish, waiting)
            hit(AFTER_PUBLISH)
            await connection.execute(self._published, done)
        missing = len(waiting) - len(done)
        self._metrics.published(len(done), missing=missing, current=not missing and len(waiting) < _PUBLISH_MAX)

    def _publish(self, waiting: Sequence[tuple[str, str]]) -> list[str]:
        return [staged for staged, path in waiting if self._lake.publish(staged, path)]

    async def tidy(self, connection: Any) -> None:
        """Remove what was staged and never committed."""
        orphans = await asyncio.to_thread(self._lake.orphans)
        known = {staged for (staged,) in await connection.fetch(self._known, orphans)}
        for name in orphans:
            if name not in known:
                await asyncio.to_thread(self._lake.discard, name)
