"""Operations on a group: decide about parked keys, show and set offsets, delete the group's rows.

Each decision is one transaction, under the lock of the key, with a row in `audit`. A parked record is already settled
(below `next_offset`, or in `settled`), so decisions do not change progress. Skipped and dropped events are added to the
inbox, so that any later repeat of such an event is a duplicate.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from bridge.errors import ConfigError
from bridge.kafka.consumed_record import TopicPartition
from bridge.kafka.routing import partition as partition_of
from consumers.postgres.pool import Connection, Database
from consumers.runtime.ledger import digest_bytes
from consumers.runtime.parking import Filters

# Rows deleted per statement, which takes at most a second: far below the statement timeout.
FORGET_ROWS = 10_000

_CHOOSE = """
select topic, part, key, code, parked_at from drx_consumer.parked_key
where grp = $1 and ($2::text is null or class = $2) and ($3::text is null or code = $3)
  and ($4::text is null or topic = $4) and ($5::text[] is null or key = any($5))
order by topic, part, key
"""
_REQUEST = """
update drx_consumer.parked_key as k set release_requested_by = $2,
  release_requested_at = clock_timestamp() + (wanted.ordinal - 1) * $3::interval
from unnest($4::text[], $5::int[], $6::text[]) with ordinality as wanted (topic, part, key, ordinal)
where k.grp = $1 and (k.topic, k.part, k.key) = (wanted.topic, wanted.part, wanted.key)
"""
# Another producer may have written a key to several partitions; records in different partitions have no order.
_LOCK_KEY = """
select from drx_consumer.parked_key where grp = $1 and topic = $2 and key = $3 and ($4::int is null or part = $4)
order by part for update
"""
_EVENTS = """
select e.part, e."offset", e.source, e.event_id, e.body_sha256, e.code,
  e.event_id <> '' and not exists (
    select from drx_consumer.inbox as i where (i.grp, i.source, i.event_id) = (e.grp, e.source, e.event_id)
  ) and row_number() over (partition by e.source, e.event_id order by e.part, e."offset") = 1 as inbox_written
from drx_consumer.parked_event as e
where e.grp = $1 and e.topic = $2 and e.key = $3 and ($4::int is null or e.part = $4)
  and ($5::bigint is null or e."offset" = $5)
order by e.part, e."offset"
"""
_EMPTY = """
select part, code from drx_consumer.parked_key
where grp = $1 and topic = $2 and key = $3 and ($4::int is null or part = $4) order by part
"""
_INTO_INBOX = """
insert into drx_consumer.inbox (grp, source, event_id, body_sha256)
select $1, * from unnest($2::text[], $3::text[], $4::bytea[]) order by 2, 3 on conflict do nothing
returning source, event_id
"""
_REMOVE_EVENTS = """
delete from drx_consumer.parked_event
where grp = $1 and topic = $2 and key = $3 and ($4::int is null or part = $4)
  and ($5::bigint is null or "offset" = $5)
"""
_REMOVE_KEY = """
delete from drx_consumer.parked_key as k
where grp = $1 and topic = $2 and key = $3 and ($4::int is null or part = $4) and not exists (
  select from drx_consumer.parked_event as e where (e.grp, e.topic, e.part, e.key) = (k.grp, k.topic, k.part, k.key)
)
"""
_PARK = """
insert into drx_consumer.parked_key as k (grp, topic, key, part, class, code, attempts)
values ($1, $2, $3, $4, 'operator', 'by_hand', 0)
on conflict (grp, topic, part, key) do update set release_requested_at = null, release_requested_by = null
where k.release_requested_at is not null
returning true
"""
_IS_PARKED = """
select exists (
  select from drx_consumer.parked_key where (grp, topic, key, part) = ($1, $2, $3, $4) and release_requested_at is null
)
"""
# A group has a row for each partition of a topic that it reads.
_PARTITIONS = "select count(*), max(part) + 1 from drx_consumer.progress where grp = $1 and topic = $2"
_LOCK_BREAKER = "select from drx_consumer.park_breaker where grp = $1 and opened_at is not null for update"
_CLOSE_BREAKER = """
update drx_consumer.park_breaker set opened_at = null where grp = $1
"""
_OPENED_AT = "select opened_at from drx_consumer.park_breaker where grp = $1"
_AUDIT = """
insert into drx_consumer.audit (grp, verb, actor, reason, topic, part, key, "offset", source, event_id, body_sha256,
  code, inbox_written)
select $1, $2, $3, $4, * from unnest($5::text[], $6::int[], $7::text[], $8::bigint[], $9::text[], $10::text[],
  $11::text[], $12::text[], $13::bool[])
"""
_PROGRESS = """
select topic, part, next_offset, last_event_id, epoch, cluster_id, updated_at,
  (select count(*) from drx_consumer.settled as s
   where (s.grp, s.topic, s.part) = (p.grp, p.topic, p.part) and s."offset" >= coalesce(p.next_offset, 0)) as above,
  (select count(*) from drx_consumer.parked_key as k
   where (k.grp, k.topic, k.part) = (p.grp, p.topic, p.part)) as parked_keys,
  (select count(*) from drx_consumer.parked_event as e
   where (e.grp, e.topic, e.part) = (p.grp, p.topic, p.part)) as parked_events
from drx_consumer.progress as p where grp = $1 and topic = any($2::text[]) order by topic, part
"""
_LOCK = "select from drx_consumer.progress where grp = $1 and topic = any($2::text[]) order by topic, part for update"
# Offsets settled above the old `next_offset` do not apply after the new one.
_UNSETTLE = """
delete from drx_consumer.settled
where grp = $1 and (topic, part) in (select * from unnest($2::text[], $3::int[]))
"""
# With a new epoch: a process that still reads is fenced, claims again, and continues from the new offset.
_SET_OFFSETS = """
insert into drx_consumer.progress as p (grp, topic, part, next_offset, cluster_id)
select $1, *, $5 from unnest($2::text[], $3::int[], $4::bigint[])
on conflict (grp, topic, part) do update set next_offset = excluded.next_offset, last_event_id = null,
  epoch = default, cluster_id = excluded.cluster_id, updated_at = clock_timestamp()
where $6 or p.next_offset is null
returning topic, part
"""
_PARKED_FROM = """
select count(*) from drx_consumer.parked_event as e
join unnest($2::text[], $3::int[], $4::bigint[]) as start (topic, part, next_offset) using (topic, part)
where e.grp = $1 and e."offset" >= start.next_offset
"""
_COUNT = """
select
  (select count(*) from drx_consumer.progress where grp = $1) as progress,
  (select count(*) from drx_consumer.inbox where grp = $1) as inbox,
  (select count(*) from drx_consumer.settled where grp = $1) as settled,
  (select count(*) from drx_consumer.parked_key where grp = $1) as parked_keys,
  (select count(*) from drx_consumer.parked_event where grp = $1) as parked_events,
  (select count(*) from drx_consumer.outbox where grp = $1) as outbox
"""
_ANY = """
select exists (select from drx_consumer.progress where grp = $1)
  or exists (select from drx_consumer.inbox where grp = $1)
"""
# False again after `init --go-on`: the newest of the two verbs decides.
_FORGOTTEN_SINCE = """
select verb = 'forget' and at > (select applied_at from "{schema}".schema_migration where number = 1)
from drx_consumer.audit where grp = $1 and verb in ('forget', 'go_on') order by number desc limit 1
"""
# In the order of the foreign keys; progress first, so that a running process is fenced.
_FORGET = ("progress", "settled", "parked_event", "parked_key", "park_breaker", "outbox", "job")
_FORGET_INBOX = """
with gone as (
  delete from drx_consumer.inbox
  where ctid = any (array(select ctid from drx_consumer.inbox where grp = $1 limit $2)) returning 1
) select count(*) from gone
"""


class By(NamedTuple):
    """The operator who acts, and the reason; in a dry run, nothing is changed."""

    actor: str
    reason: str = ""
    dry_run: bool = False


class Decision(NamedTuple):
    """A decision about a record, a key, a partition or a whole group; in a dry run, it is not carried out."""

    topic: str | None = None
    partition: int | None = None
    key: str | None = None
    offset: int | None = None
    source: str | None = None
    event_id: str | None = None
    body_sha256: str | None = None
    code: str | None = None  # why the record or key was parked
    # Whether the event was added to the inbox: False if its id was there already, or it has no id.
    inbox_written: bool | None = None


class Progress(NamedTuple):
    """Progress of a group in a partition; see `Claim`."""

    next_offset: int | None  # None if the partition was claimed and nothing was settled or set yet
    last_event_id: str | None
    epoch: int
    cluster_id: str | None
    updated_at: datetime
    above: int  # number of records settled at or above `next_offset`
    parked_keys: int
    parked_events: int


async def request_release(
    database: Database, group: str, filters: Filters, *, per_second: float | None = None, by: By
) -> list[Decision]:
    """Request the release of parked keys by filters, oldest first, at most `per_second`; their owners release them."""
    interval = timedelta(seconds=1 / per_second if per_second else 0)
    async with database.transaction() as connection:
        choose = _CHOOSE if by.dry_run else _CHOOSE + " for update"
        rows = await connection.fetch(choose, group, *filters)
        rows.sort(key=lambda row: (row["parked_at"], row["topic"], row["part"], row["key"]))
        decisions = [Decision(row["topic"], row["part"], row["key"], code=row["code"]) for row in rows]
        if not by.dry_run and decisions:
            topics, partitions, names, *_ = zip(*decisions, strict=True)
            await connection.execute(_REQUEST, group, by.actor, interval, topics, partitions, names)
            await audit(connection, group, "retry", decisions, by)
    return decisions


async def park(
    database: Database, group: str, topic: str, key: str, *, partition: int | None = None, by: By
) -> list[Decision]:
    """Park a key manually: its records wait in order until it is released. A requested release is withdrawn.

    The default `partition` is computed as Kafka's default partitioner does. Raises `ConfigError` if the key is already
    parked, or its partition is unknown.
    """
    async with database.transaction() as connection:
        if partition is None:
            partition = await _partition(connection, group, topic, key)
        if await connection.fetchval(_IS_PARKED, group, topic, key, partition) or not (
            by.dry_run or await connection.fetchval(_PARK, group, topic, key, partition)
        ):
            raise ConfigError("that key is parked already")
        decision = Decision(topic, partition, key, code="by_hand")
        if not by.dry_run:
            await audit(connection, group, "park", [decision], by)
    return [decision]


async def discard(
    database: Database,
    group: str,
    topic: str,
    key: str,
    *,
    offset: int | None = None,
    partition: int | None = None,
    by: By,
) -> list[Decision]:
    """Skip one parked record of a key, or drop all of its records, in every partition unless `partition` is given.

    Later records stay parked; a key without records is no longer parked. Raises `ConfigError` if no such record or key
    is parked, or several partitions have the record.
    """
    which = (topic, key, partition, offset)
    async with database.transaction() as connection:
        if not by.dry_run:
            await connection.fetch(_LOCK_KEY, group, topic, key, partition)
        rows = await connection.fetch(_EVENTS, group, *which)
        decisions = [Decision(topic, row["part"], key, *tuple(row)[1:]) for row in rows]
        if not decisions and offset is None:  # parked manually, and no record has arrived since
            rows = await connection.fetch(_EMPTY, group, topic, key, partition)
            decisions = [Decision(topic, row["part"], key, code=row["code"]) for row in rows]
        if not decisions:
            raise ConfigError("no record of that topic, key and offset is parked")
        if offset is not None and len(decisions) > 1:
            found = ", ".join(str(each.partition) for each in decisions)
            msg = f"partitions {found} have a record of that key at that offset: choose one by --partition"
            raise ConfigError(msg)
        if not by.dry_run:
            decisions = await _into_inbox(connection, group, decisions)
            await connection.execute(_REMOVE_EVENTS, group, *which)
            await connection.execute(_REMOVE_KEY, group, topic, key, partition)
            verb = "drop_key" if offset is None else "skip"
            await audit(connection, group, verb, decisions, by)
    return decisions


async def resume(database: Database, group: str, by: By) -> list[Decision]:
    """Close the park limit of a group: its processes continue, and keys parked before no longer count."""
    async with database.transaction() as connection:
        if await connection.fetchrow(_LOCK_BREAKER, group) is None:
            raise ConfigError("the park limit is not open")
        if not by.dry_run:
            await connection.execute(_CLOSE_BREAKER, group)
            await audit(connection, group, "resume", [Decision()], by)
    return [Decision()]


async def opened_at(database: Database, group: str) -> datetime | None:
    """Return when the park limit of a group opened; None while it is closed."""
    since: datetime | None = await database.fetchval(_OPENED_AT, group)
    return since


async def audit(connection: Connection, group: str, verb: str, decisions: Sequence[Decision], by: By) -> None:
    """Write decisions to the audit table, in the transaction that carries them out."""
    columns = [list(column) for column in zip(*decisions, strict=True)]
    if columns:
        await connection.execute(_AUDIT, group, verb, by.actor, by.reason, *columns)


async def standings(database: Database, group: str, topics: Collection[str]) -> dict[TopicPartition, Progress]:
    """Return the progress of a group in each partition of these topics that the group has claimed or set."""
    rows = await database.fetch(_PROGRESS, group, list(topics))
    return {TopicPartition(*row[:2]): Progress(*row[2:]) for row in map(tuple, rows)}


async def lock_progress(connection: Connection, group: str, topics: Collection[str]) -> None:
    """Lock the group's progress against settling and claims until the transaction ends."""
    await connection.fetch(_LOCK, group, list(topics))


async def parked_from(connection: Connection, group: str, offsets: Mapping[TopicPartition, int]) -> int:
    """Return the number of parked events at or above these offsets, which the group would read again."""
    tps = sorted(offsets)
    columns = [at.topic for at in tps], [at.partition for at in tps], [offsets[at] for at in tps]
    return int(await connection.fetchval(_PARKED_FROM, group, *columns))


async def set_offsets(
    connection: Connection, group: str, offsets: Mapping[TopicPartition, int], *, cluster_id: str, move: bool, by: By
) -> dict[TopicPartition, int]:
    """Set a group's offsets, or only missing offsets without `move`; return the offsets set. The inbox is unchanged."""
    tps = sorted(offsets)
    columns = [at.topic for at in tps], [at.partition for at in tps]
    if move:
        await connection.execute(_UNSETTLE, group, *columns)
    rows = await connection.fetch(_SET_OFFSETS, group, *columns, [offsets[at] for at in tps], cluster_id, move)
    placed = {at: offsets[at] for at in sorted(TopicPartition(*row) for row in rows)}
    decisions = [Decision(*at, offset=offset) for at, offset in placed.items()]
    await audit(connection, group, "init", decisions, by)
    return placed


async def has_past(database: Database, group: str) -> bool:
    """Return whether a group has progress, or an inbox in which its events would be duplicates."""
    if not await database.fetchval("select to_regclass('drx_consumer.inbox') is not null"):
        return False
    return bool(await database.fetchval(_ANY, group))


async def forgotten_since(database: Database, group: str, schema: str) -> bool:
    """Return whether a group was forgotten after the tables of its schema, which must exist, were created."""
    if not await database.fetchval("select to_regclass('drx_consumer.audit') is not null"):
        return False
    return bool(await database.fetchval(_FORGOTTEN_SINCE.format(schema=schema), group))


async def forget_group(database: Database, group: str, by: By) -> dict[str, int]:
    """Delete all rows of a group except its audit; return the number of deleted rows by table."""
    async with database.transaction() as connection:
        forgotten: dict[str, int] = dict(await connection.fetchrow(_COUNT, group))
        if by.dry_run:
            return forgotten
        for table in _FORGET:
            await connection.execute(f"delete from drx_consumer.{table} where grp = $1", group)  # noqa: S608 - constants
        await audit(connection, group, "forget", [Decision()], by)
    while await database.fetchval(_FORGET_INBOX, group, FORGET_ROWS) == FORGET_ROWS:
        pass
    return forgotten


async def _partition(connection: Connection, group: str, topic: str, key: str) -> int:
    count, end = await connection.fetchrow(_PARTITIONS, group, topic)
    if not count or count != end or key.startswith("\\"):  # an escaped form of bytes that are not UTF-8
        raise ConfigError("the partition of that key is not known: give it by --partition")
    return partition_of(key.encode(), count)


async def _into_inbox(connection: Connection, group: str, decisions: list[Decision]) -> list[Decision]:
    """Insert events into the inbox; return all decisions, with `inbox_written` corrected."""
    wanted = [each for each in decisions if each.inbox_written]
    columns = (
        [each.source for each in wanted],
        [each.event_id for each in wanted],
        [digest_bytes(each.body_sha256 or "") for each in wanted],
    )
    written = {tuple(row) for row in await connection.fetch(_INTO_INBOX, group, *columns)}
    return [
        each._replace(inbox_written=bool(each.inbox_written) and (each.source, each.event_id) in written)
        for each in decisions
    ]
