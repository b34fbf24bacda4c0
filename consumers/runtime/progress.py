"""How far a group is: to look at, to set while nobody is in the group, and to forget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from bridge.errors import ConfigError
from bridge.kafka.transport import Place
from consumers.postgres.pool import Connection, Database
from consumers.runtime.operator import Decision, audit

# Rows deleted at a time: a second at most, far below the limit of a statement.
FORGET_ROWS = 10_000

_PROGRESS = """
select topic, part, next_offset, last_event_id, epoch, cluster_id, adoptions, updated_at,
  (select count(*) from drx_consumer.settled as s
   where (s.grp, s.topic, s.part) = (p.grp, p.topic, p.part) and s."offset" >= coalesce(p.next_offset, 0)) as above,
  (select count(*) from drx_consumer.parked_key as k
   where (k.grp, k.topic, k.part) = (p.grp, p.topic, p.part)) as parked_keys,
  (select count(*) from drx_consumer.parked_event as e
   where (e.grp, e.topic, e.part) = (p.grp, p.topic, p.part)) as parked_events
from drx_consumer.progress as p where grp = $1 and topic = any($2::text[]) order by topic, part
"""
_LOCK = "select from drx_consumer.progress where grp = $1 and topic = any($2::text[]) order by topic, part for update"
# The epoch is a new one: a process that nobody knew of is fenced, claims again and goes on from here. What was settled
# at or above the old mark of a partition says nothing about the way from the new one; but where nothing had been
# settled yet, it was carried over for a group that is about to start.
_UNSETTLE = """
delete from drx_consumer.settled as s using drx_consumer.progress as p
where (s.grp, s.topic, s.part) = (p.grp, p.topic, p.part) and p.next_offset is not null
  and p.grp = $1 and (p.topic, p.part) in (select * from unnest($2::text[], $3::int[]))
"""
_PLACE = """
insert into drx_consumer.progress as p (grp, topic, part, next_offset, cluster_id, epoch)
select $1, *, $5, nextval('drx_consumer.epoch') from unnest($2::text[], $3::int[], $4::bigint[])
on conflict (grp, topic, part) do update set next_offset = excluded.next_offset, last_event_id = null,
  epoch = nextval('drx_consumer.epoch'), cluster_id = excluded.cluster_id, adoptions = 0, held = false, deaths = 0,
  attempt_offset = null, attempts = 0, updated_at = clock_timestamp()
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
# Unless somebody has said since that the group goes on.
_FORGOTTEN_SINCE = """
select verb = 'forget' and at > (select applied_at from "{schema}".schema_migration where number = 1)
from drx_consumer.audit where grp = $1 and verb in ('forget', 'go_on') order by number desc limit 1
"""
# In the order of their references; the progress first, so that a running process is fenced.
_FORGET = (
    "delete from drx_consumer.progress where grp = $1",
    "delete from drx_consumer.settled where grp = $1",
    "delete from drx_consumer.parked_event where grp = $1",
    "delete from drx_consumer.parked_key where grp = $1",
    "delete from drx_consumer.park_breaker where grp = $1",
    "delete from drx_consumer.outbox where grp = $1",
    "delete from drx_consumer.job where grp = $1",
)
_FORGET_INBOX = """
with gone as (
  delete from drx_consumer.inbox
  where ctid = any (array(select ctid from drx_consumer.inbox where grp = $1 limit $2)) returning 1
) select count(*) from gone
"""


class Progress(NamedTuple):
    """Where a group stands in a partition; see `Claim`.

    Attributes:
        next_offset: None when it was claimed, and nothing settled or set yet.
        above: How many records are settled at or above `next_offset`.
        parked_keys: Keys of the partition that are set aside, with `parked_events` records.
    """

    place: Place
    next_offset: int | None
    last_event_id: str | None
    epoch: int
    cluster_id: str | None
    adoptions: int
    updated_at: datetime
    above: int
    parked_keys: int
    parked_events: int


class Forgotten(NamedTuple):
    """Rows that a group had."""

    progress: int
    inbox: int
    settled: int
    parked_keys: int
    parked_events: int
    outbox: int


async def standings(database: Database, group: str, topics: Collection[str]) -> dict[Place, Progress]:
    """Return where a group stands in each partition of these topics that it has claimed or been placed in."""
    async with database.transaction() as connection:
        rows = await connection.fetch(_PROGRESS, group, list(topics))
    found = [Progress(Place(row["topic"], row["part"]), *tuple(row)[2:]) for row in rows]
    return {each.place: each for each in found}


async def lock(connection: Connection, group: str, topics: Collection[str]) -> None:
    """Let whoever settles or claims partitions of the group wait until the transaction ends."""
    await connection.fetch(_LOCK, group, list(topics))


async def parked_from(connection: Connection, group: str, offsets: Mapping[Place, int]) -> int:
    """Return how many parked events lie at or above these offsets, where the group would meet their offsets again."""
    places = sorted(offsets)
    columns = [at.topic for at in places], [at.partition for at in places], [offsets[at] for at in places]
    return int(await connection.fetchval(_PARKED_FROM, group, *columns))


async def place(
    connection: Connection, group: str, offsets: Mapping[Place, int], *, cluster_id: str, move: bool
) -> set[Place]:
    """Let a group go on from these offsets; effects that are done stay so: a repetition is a duplicate.

    Returns:
        Which were placed: without `move`, none that stands somewhere by now.
    """
    places = sorted(offsets)
    columns = [at.topic for at in places], [at.partition for at in places]
    if move:
        await connection.execute(_UNSETTLE, group, *columns)
    rows = await connection.fetch(_PLACE, group, *columns, [offsets[at] for at in places], cluster_id, move)
    return {Place(*row) for row in rows}


async def audit_placing(
    connection: Connection, group: str, offsets: Mapping[Place, int], *, actor: str, reason: str
) -> None:
    """Keep who placed a group and why, in the transaction that does it."""
    decisions = [Decision(at.topic, at.partition, offset=offsets[at]) for at in sorted(offsets)]
    await audit(connection, group, "init", decisions, actor=actor, reason=reason)


async def has_past(database: Database, group: str) -> bool:
    """Return whether a group would not begin anew: it has progress, or would take events for duplicates."""
    async with database.transaction() as connection:
        if not await connection.fetchval("select to_regclass('drx_consumer.inbox') is not null"):
            return False
        return bool(await connection.fetchval(_ANY, group))


async def forgotten_since(database: Database, group: str, schema: str) -> bool:
    """Return whether a group was forgotten since the tables of its schema, which are there, were made."""
    async with database.transaction() as connection:
        if not await connection.fetchval("select to_regclass('drx_consumer.audit') is not null"):
            return False
        return bool(await connection.fetchval(_FORGOTTEN_SINCE.format(schema=schema), group))


async def forget_group(database: Database, group: str, *, actor: str, reason: str, dry_run: bool = False) -> Forgotten:
    """Remove all that is kept of a group, but for the audit; return how much that is.

    Raises:
        ConfigError: No reason.
    """
    if not reason.strip():
        msg = "forget needs a reason: it is kept in the audit"
        raise ConfigError(msg)
    async with database.transaction() as connection:
        forgotten = Forgotten(*await connection.fetchrow(_COUNT, group))
        if dry_run:
            return forgotten
        for statement in _FORGET:
            await connection.execute(statement, group)
        await audit(connection, group, "forget", [Decision()], actor=actor, reason=reason)
    while True:
        async with database.transaction() as connection:
            if await connection.fetchval(_FORGET_INBOX, group, FORGET_ROWS) < FORGET_ROWS:
                return forgotten
