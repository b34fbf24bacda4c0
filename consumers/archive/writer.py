"""Apply a batch: stage its files and record them in the transaction that settles it; a job publishes and merges."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, timedelta
from functools import partial
from itertools import groupby
from math import inf
from typing import Any

import pyarrow as pa  # noqa: TID251 - its error types
from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.errors import PermanentError
from bridge.event import UNRECOGNIZED_TYPE
from bridge.runtime.failpoints import hit
from bridge.runtime.findings import counted
from bridge.runtime.logging import log
from bridge.runtime.metrics import NAMESPACE
from consumers.api import Placed
from consumers.archive.columns import IdDigest, schema_of, table_of, unrecognized_schema
from consumers.archive.lake import EVENTS, NAME_PART, UNRECOGNIZED, Lake, Merged, Staged
from consumers.archive.options import ArchiveOptions

_NOTE = """
insert into "{schema}".file (staged, row_count, bytes, columns, path, topic, part, first_offset, last_offset, gathers)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
# Merged days first: a merged day replaces the directory, and would remove a file that was published before it.
_WAITING = """
select staged, path from "{schema}".file where published_at is null and not gathers
order by right(staged, 4) = '.day' desc, committed_at limit $1
"""
_PUBLISHED = """update "{schema}".file set published_at = now() where staged = any($1)"""
_GATHERED = """
select directory, (array_agg(staged order by part, first_offset))[1:$3] as names from "{schema}".file
where published_at is null and gathers
group by directory, columns having min(committed_at) < now() - $1::interval or sum(row_count) >= $2
"""
_ALONE = """update "{schema}".file set gathers = false where staged = any($1)"""
# Days that ended a day ago and got no file since, with the files to merge.
_ENDED = """
select directory, (array_agg(staged order by part nulls first, first_offset))[1:$1] as staged,
  (array_agg(substr(path, length(directory) + 2) order by part nulls first, first_offset))[1:$1] as names
from "{schema}".file where right(directory, 10)::date < (now() at time zone 'UTC')::date - 1
group by directory, columns
having count(*) > 1 and bool_and(published_at is not null)
  and max(committed_at) < now() - interval '1 day' and sum(row_count) <= $2
order by directory
"""
_MERGED = """
with merged as (delete from "{schema}".file where staged = any($1) returning committed_at)
insert into "{schema}".file (staged, row_count, bytes, columns, path, committed_at)
values ($2, $3, $4, $5, $6, (select max(committed_at) from merged))
"""
_LAKE = """select id::text, exists (select from "{schema}".file) from "{schema}".lake"""
_KNOWN = """select staged from "{schema}".file where staged = any($1)"""
_COMMITTED = """
select staged, path, row_count, case when published_at is null then 'staging/' || staged else path end as place
from "{schema}".file order by path
"""
_NAMED_MAX = 20  # missing files that `doctor` names
# Files published in one run, at some 2 ms each.
_PUBLISH_MAX = 500
# Rows merged without waiting for more (30 MB), and the maximum of files in one run (ten seconds).
_GATHER_ROWS, _GATHER_FILES = 200_000, 1_000
# Files and rows of a day merged in one step: 6 ms of CPU per file and 7 µs per row, within half a minute.
_DAY_FILES, _DAY_ROWS_MAX = 1_000, 4_000_000
# Seconds between two searches for days that have ended.
_LOOK_S = 600.0


class ArchiveMetrics:
    """Counts files that are staged, published and missing."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        own: dict[str, Any] = {"labelnames": ("service",), "namespace": NAMESPACE, "registry": registry}
        counter: Callable[[str, str], Counter] = partial(Counter, **own)
        self.staged = counter("archive_staged_files", "Files staged").labels(service)
        self.rows = counter("archive_staged_rows", "Rows of the files staged").labels(service)
        self.published = counter("archive_published_files", "Files published").labels(service)
        missing = "Committed files that were not found, counted at each search"
        self.missing = counter("archive_missing_files", missing).labels(service)
        current = "When readers last had every committed file; until the first check, when this process began"
        self.current = Gauge("archive_current_timestamp_seconds", current, **own).labels(service)
        self.current.set_to_current_time()


def path_of(placed: Sequence[Placed], day: date, *, staged: str) -> str:
    """Return the path of the file of events of one partition and day, in the order of the log.

    A recreated topic has the same offsets again, so part of the staged name is included.
    """
    (event, first), last = placed[0], placed[-1].context
    table = UNRECOGNIZED if event.type == UNRECOGNIZED_TYPE else f"{EVENTS}/topic={first.topic}"
    name = f"p{first.partition:02d}-{first.offset:012d}-{last.offset:012d}-{staged[:NAME_PART]}.parquet"
    return f"{table}/received_date={day.isoformat()}/{name}"


def by_table_and_day(batch: Sequence[Placed]) -> Iterator[tuple[date, list[Placed]]]:
    """Yield the rows of each table and day of receipt (UTC), in the order of the log."""

    def group(placed: Placed) -> tuple[bool, date]:
        return placed.event.type == UNRECOGNIZED_TYPE, placed.event.received_at.astimezone(UTC).date()

    for (_, day), events in groupby(sorted(batch, key=lambda one: (group(one), one.context.offset)), key=group):
        yield day, list(events)


class Archiver:
    """The handler of the archive, and its jobs; one per process."""

    def __init__(
        self, lake: Lake, options: ArchiveOptions, *, metrics: ArchiveMetrics, digest: IdDigest | None
    ) -> None:
        self._lake = lake
        self._options = options
        self._schema = schema_of(identifying=options.columns == "all")
        self._metrics = metrics
        self._digest = digest
        # Loop time of the next search; infinity if the store cannot exchange directories.
        self._look_at = 0.0
        # Days that could not be merged are tried last, since an unreadable file stays unreadable.
        self._failed: set[str] = set()

    def _sql(self, statement: str) -> str:
        return statement.format(schema=self._options.tables_schema)  # a validated name

    async def prepare(self, connection: Any) -> None:
        """Check that the lake exists and belongs to these tables; see `Lake.claim`."""
        ((archive, begun),) = await connection.fetch(self._sql(_LAKE))
        await asyncio.to_thread(self._lake.claim, archive, begun=begun)

    async def ping(self, _resource: Any) -> None:
        """Check that a file can be written."""
        await asyncio.to_thread(self._lake.probe)

    async def lacks(self, database: Any) -> list[str]:
        """Name the committed files that are neither staged nor published, and the command that writes them again."""
        committed = [] if database is None else await database.fetch(self._sql(_COMMITTED))
        there = await asyncio.to_thread(self._lake.names)
        gone = [each for each in committed if not there.intersection((each["staged"], each["path"]))]
        if not gone:
            return []
        events = counted(sum(each["row_count"] for each in gone), "event")
        again = f"CONSUMER_ARCHIVE__ROOT=EMPTY CONSUMER_ARCHIVE__SCHEMA={self._options.tables_schema}_2"
        again = f"restore them, or write all to another lake: `{again} drx-consumer init archive --from earliest`"
        files = [f"{each['place']}, {counted(each['row_count'], 'event')}" for each in gone[:_NAMED_MAX]]
        return [f"{counted(len(gone), 'committed file')} with {events}: {again}", *files]

    async def __call__(self, batch: Sequence[Placed], connection: Any) -> None:
        """Write new events of one partition; `PermanentError` for a value that does not fit its column."""
        for day, events in by_table_and_day(batch):
            hit("before_stage")
            try:
                staged = await asyncio.to_thread(self._stage, events)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as exc:
                # Its message contains the value.
                raise PermanentError("no_column") from exc
            hit("after_stage")
            first, last = events[0].context, events[-1].context
            place = first.topic, first.partition, first.offset, last.offset
            path = path_of(events, day, staged=staged.name)
            gathers = self._options.gather_s > 0 and staged.rows < self._options.batch_records
            await connection.execute(self._sql(_NOTE), *staged, path, *place, gathers)
            self._metrics.staged.inc()
            self._metrics.rows.inc(staged.rows)

    def _stage(self, events: Sequence[Placed]) -> Staged:
        if events[0].event.type != UNRECOGNIZED_TYPE:
            return self._lake.stage(table_of(events, self._schema, digest=self._digest))
        if not self._options.raw:  # from a topic that the site has configured
            raise PermanentError("raw_not_wanted")
        return self._lake.stage(table_of(events, unrecognized_schema()))

    async def publish(self, connection: Any) -> None:
        """Publish committed files, and merge those that are due; the next run publishes the merged ones."""
        made = await self._gather(connection)
        waiting = [
            each for each in await connection.fetch(self._sql(_WAITING), _PUBLISH_MAX) if each["staged"] not in made
        ]
        publish = self._lake.publish
        done = await asyncio.to_thread(lambda: [staged for staged, path in waiting if publish(staged, path)])
        if waiting:
            hit("after_publish")
            await connection.execute(self._sql(_PUBLISHED), done)
        missing = len(waiting) - len(done)
        self._metrics.published.inc(len(done))
        self._metrics.missing.inc(missing)
        if not missing and len(waiting) < _PUBLISH_MAX:
            self._metrics.current.set_to_current_time()
        now = asyncio.get_running_loop().time()
        if not waiting and now >= self._look_at:
            self._look_at = now + _LOOK_S
            await self._merge_a_day(connection)

    async def _gather(self, connection: Any) -> set[str]:
        """Merge files of a day that have waited long enough or have enough rows; return the names of the new files."""
        made: set[str] = set()
        wait = timedelta(seconds=self._options.gather_s)
        left = _GATHER_FILES
        for directory, names in await connection.fetch(self._sql(_GATHERED), wait, _GATHER_ROWS, _GATHER_FILES):
            if left <= 0:
                break
            left -= len(names)
            merged = await asyncio.to_thread(self._lake.merge, names, directory) if len(names) > 1 else None
            if merged is None:  # only one file, or one is missing, which the publisher counts
                await connection.execute(self._sql(_ALONE), names)
            else:
                await self._replace(connection, names, merged)
                made.add(merged.staged.name)
        return made

    async def _merge_a_day(self, connection: Any) -> None:
        """Stage one file instead of the many of a past day; each run merges one day."""
        if not await asyncio.to_thread(self._lake.store.exchanges):
            log.info("worker.days_not_merged", code="no_exchange")
            self._look_at = inf
            return
        ended = await connection.fetch(self._sql(_ENDED), _DAY_FILES, _DAY_ROWS_MAX)
        for directory, staged, names in sorted(ended, key=lambda each: each["directory"] in self._failed):
            self._failed.add(directory)
            merged = await asyncio.to_thread(self._lake.merge_day, names, directory)
            self._failed.remove(directory)
            if merged is not None:
                await self._replace(connection, staged, merged)
                self._look_at = 0.0
                return

    async def _replace(self, connection: Any, names: Sequence[str], merged: Merged) -> None:
        hit("after_merge")
        await connection.execute(self._sql(_MERGED), names, *merged.staged, merged.path)

    async def tidy(self, connection: Any) -> None:
        """Remove files that were staged and never committed."""
        orphans = await asyncio.to_thread(self._lake.orphans)
        known = {staged for (staged,) in await connection.fetch(self._sql(_KNOWN), orphans)}
        for name in orphans:
            if name not in known:
                await asyncio.to_thread(self._lake.discard, name)
