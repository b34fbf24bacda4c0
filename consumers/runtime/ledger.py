"""What a group has settled, kept in PostgreSQL together with the effects of the handlers: the exactly-once part.

One transaction settles records: `fence` (is the partition still ours?), `admit` (which events are new?), the effects,
`settle` (up to where is everything done?). It needs READ COMMITTED, where a statement that waited for another
transaction looks again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Literal, NamedTuple

from bridge.errors import BridgeError
from bridge.kafka.transport import Place
from consumers.api import Outgoing
from consumers.postgres.pool import Connection, Database, savepoint
from consumers.postgres.text import stored_text

_CLAIM = """
insert into drx_consumer.progress as p (grp, topic, part, epoch, cluster_id, adoptions, held)
values ($1, $2, $3, nextval('drx_consumer.epoch'), $4, 1, true)
on conflict (grp, topic, part) do update set
  epoch = nextval('drx_consumer.epoch'), adoptions = p.adoptions + 1, held = true,
  deaths = p.deaths + (p.held and not $5)::int, updated_at = clock_timestamp()
returning epoch, next_offset, last_event_id, cluster_id, deaths, attempt_offset, attempts
"""
_STANDING = """
select
  array(select "offset" from drx_consumer.settled where grp = $1 and topic = $2 and part = $3) as settled,
  array(select key from drx_consumer.parked_key where grp = $1 and topic = $2 and part = $3) as parked
"""
_GIVE_BACK = """
update drx_consumer.progress as p set held = false,
  attempts = p.attempts - (p.attempts > 0 and p.attempt_offset = ours.attempt_offset is true)::int
from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) as ours (topic, part, epoch, attempt_offset)
where p.grp = $1 and (p.topic, p.part, p.epoch) = (ours.topic, ours.part, ours.epoch)
"""
_MARK_ATTEMPT = """
update drx_consumer.progress
set attempts = case when attempt_offset = $5 then attempts + 1 else 1 end,
  attempt_offset = $5, updated_at = clock_timestamp()
where grp = $1 and topic = $2 and part = $3 and epoch = $4
returning attempts
"""
_MARK_RELEASE = """
update drx_consumer.parked_key as k set release_offset = first."offset",
  release_attempts = case when k.release_offset = first."offset" then k.release_attempts + 1 else 1 end
from (
  select min("offset") as "offset" from drx_consumer.parked_event
  where grp = $1 and topic = $2 and part = $3 and key = $4
) as first
where k.grp = $1 and k.topic = $2 and k.part = $3 and k.key = $4
returning k.release_attempts, k.release_requested_at is not null as asked
"""
_UNMARK_RELEASES = """
update drx_consumer.parked_key as k set release_attempts = k.release_attempts - 1
from unnest($2::text[], $3::int[], $4::bigint[], $5::text[]) as begun (topic, part, epoch, key)
join drx_consumer.progress as p using (topic, part, epoch)
where p.grp = $1 and k.grp = $1 and (k.topic, k.part, k.key) = (begun.topic, begun.part, begun.key)
  and k.release_attempts > 0
"""


class Claim(NamedTuple):
    """Where a partition stands at the moment it becomes ours.

    Attributes:
        next_offset: Everything below is settled; None when nothing is known of the partition.
        last_event_id: `stored_text` of the `ce_id` of the record before `next_offset`, if there was one.
        cluster_id: The Kafka cluster that the offsets belong to.
        settled: Offsets at or above `next_offset` that are settled.
        parked: Keys set aside, in text form.
        deaths: Owners since `next_offset` last moved that did not give the partition back.
        attempt_offset: Record that was marked by `mark_attempt`, and `attempts` how often.
    """

    epoch: int
    next_offset: int | None
    last_event_id: str | None
    cluster_id: str | None
    settled: frozenset[int]
    parked: frozenset[str]
    deaths: int
    attempt_offset: int | None
    attempts: int


class Ended(NamedTuple):
    """A claim that ends in order.

    Attributes:
        attempt_offset: Record that this owner has marked, if any.
        releases: Keys, in text form, whose releases it has marked and not ended.
    """

    place: Place
    epoch: int
    attempt_offset: int | None
    releases: Sequence[str]


async def mark_release(connection: Connection, group: str, place: Place, key: str) -> int | None:
    """Note that the release of a key, in text form, begins.

    Returns:
        How often it began without a known end; 0 for a key that is parked no more, None if nobody asks for it any more.
    """
    row = await connection.fetchrow(_MARK_RELEASE, group, *place, key)
    if row is None:
        return 0
    return row["release_attempts"] if row["asked"] else None


Verdict = Literal["fresh", "duplicate", "conflict"]

_SHA256 = re.compile(r"[0-9a-f]{64}")

# Locks the row until the end of the transaction, so that a claim waits for it; writes nothing.
_FENCE = """
select from drx_consumer.progress
where grp = $1 and topic = $2 and part = $3 and epoch = $4 and coalesce(next_offset <= $5, true)
for no key update
"""
# In the order of the index: two partitions that meet in several ids wait for each other instead of locking up.
_ADMIT = """
insert into drx_consumer.inbox (grp, source, event_id, body_sha256)
select $1, source, event_id, body_sha256
from unnest($2::text[], $3::text[], $4::bytea[]) as given (source, event_id, body_sha256)
order by source collate "C", event_id collate "C"
on conflict do nothing
returning source, event_id
"""
_ADMITTED_BEFORE = """
select source, event_id, body_sha256 from drx_consumer.inbox
join unnest($2::text[], $3::text[]) as given (source, event_id) using (source, event_id)
where grp = $1
"""
_SETTLE = """
with moved as (
  update drx_consumer.progress as p set
    next_offset = greatest($5, p.next_offset),
    last_event_id = case when $5 <= p.next_offset then p.last_event_id else $6 end,
    adoptions = case when $5 <= p.next_offset then p.adoptions else 0 end,
    deaths = case when $5 <= p.next_offset then p.deaths else 0 end,
    attempts = case when $5 > p.attempt_offset then 0 else p.attempts end,
    attempt_offset = case when $5 > p.attempt_offset then null else p.attempt_offset end,
    updated_at = clock_timestamp()
  where grp = $1 and topic = $2 and part = $3 and epoch = $4
  returning p.next_offset
), pruned as (
  delete from drx_consumer.settled as s using moved
  where grp = $1 and topic = $2 and part = $3 and s."offset" < moved.next_offset
), noted as (
  insert into drx_consumer.settled (grp, topic, part, "offset")
  select $1, $2, $3, above from unnest($7::bigint[]) as above, moved where above >= moved.next_offset
  on conflict do nothing
)
select next_offset from moved
"""
_PUBLISH = """
insert into drx_consumer.outbox (grp, source_topic, source_part, topic, key, value, headers)
select $1, $2, $3, topic, key, value, headers
from unnest($4::text[], $5::bytea[], $6::bytea[], $7::jsonb[]) with ordinality as given (topic, key, value, headers, n)
order by n
"""
_PING = """
insert into drx_consumer.settled (grp, topic, part, "offset") values ($1, '', 0, 0)
"""


class Inbox(NamedTuple):
    """Who an event is: its body's digest, in hex, tells a repetition from another event with the same id."""

    source: str
    event_id: str
    body_sha256: str


class FencedError(BridgeError):
    """The partition was claimed by another, or stands elsewhere than we think: nothing of this transaction holds."""

    code = "fenced"


class Settlement:
    """One transaction that settles records of a partition.

    Attributes:
        connection: Inside the transaction; handed to handlers.
        outgoing: What handlers have published; put into the outbox at the end of the transaction.
    """

    def __init__(self, connection: Connection, *, group: str, place: Place, epoch: int) -> None:
        """Take a connection inside a transaction, and the epoch of our claim."""
        self.connection = connection
        self.group = group
        self.place = place
        self.outgoing: list[Outgoing] = []
        self._where = (group, place.topic, place.partition, epoch)

    async def fence(self, first: int) -> None:
        """Make sure that the partition is ours and that no record from `first` on is below the mark.

        Raises:
            FencedError: It is not so.
        """
        if await self.connection.fetchrow(_FENCE, *self._where, first) is None:
            raise FencedError

    async def admit(self, entries: Sequence[Inbox]) -> list[Verdict]:
        """Put events into the inbox and return for each whether its effects are still to be done.

        Waits for another transaction that is about to admit the same event. Rolled back to a savepoint, the events
        leave the inbox again.
        """
        if not entries:
            return []
        wanted, first, columns = _distinct(entries)
        fresh = {tuple(row) for row in await self.connection.fetch(_ADMIT, self.group, *columns)}
        known = {event: entry.body_sha256 for event, entry in first.items()}
        if len(fresh) < len(first):
            # A statement of its own: it sees what another transaction has committed while the first one waited.
            for row in await self.connection.fetch(_ADMITTED_BEFORE, self.group, *columns[:2]):
                known[row["source"], row["event_id"]] = row["body_sha256"].hex()
        return [_verdict(entry, fresh, known[entry[:2]]) for entry in wanted]

    async def look(self, entries: Sequence[Inbox]) -> list[Verdict]:
        """Return what `admit` would say now, and write nothing: another transaction may admit them meanwhile."""
        if not entries:
            return []
        wanted, first, columns = _distinct(entries)
        known = {event: entry.body_sha256 for event, entry in first.items()}
        fresh: set[tuple[str, ...]] = set(first)
        for row in await self.connection.fetch(_ADMITTED_BEFORE, self.group, *columns[:2]):
            event = row["source"], row["event_id"]
            known[event] = row["body_sha256"].hex()
            fresh.discard(event)
        return [_verdict(entry, fresh, known[entry[:2]]) for entry in wanted]

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        """Open a savepoint; its errors come out as those of `Database.transaction` do."""
        return savepoint(self.connection)

    async def settle(self, *, next_offset: int, last_event_id: str | None, above: Sequence[int]) -> None:
        """Move the mark up to `next_offset`, never back, and keep what is settled `above` it, and what was published.

        `last_event_id` is the `ce_id` of the record at `next_offset` - 1, or None if there is no such record.

        Raises:
            FencedError: The partition is not ours.
        """
        if self.outgoing:
            columns = [list(column) for column in zip(*self.outgoing, strict=True)]
            columns[3] = [json.dumps(headers) for headers in columns[3]]
            await self.connection.execute(_PUBLISH, self.group, *self.place, *columns)
        last = None if last_event_id is None else stored_text(last_event_id)
        if await self.connection.fetchrow(_SETTLE, *self._where, next_offset, last, list(above)) is None:
            raise FencedError


class Ledger:
    """Claims the partitions of one group and opens the transactions that settle their records.

    Attributes:
        published: Set when something new is in the outbox.
    """

    def __init__(self, database: Database, *, group: str, cluster_id: str) -> None:
        """Take the cluster that new partitions are noted to belong to."""
        self._database = database
        self._group = group
        self._cluster_id = cluster_id
        self.published = asyncio.Event()

    async def claim(self, place: Place, *, again: bool = False) -> Claim:
        """Take a partition: transactions of whoever had it fail from now on.

        Whoever has not given it back has died, unless it is claimed `again` by a process that never did.

        Raises:
            TransientError: The database is away, or the owner before us still holds the row.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CLAIM, self._group, *place, self._cluster_id, again)
            # A statement of its own: it sees what the owner before us has committed while the claim waited.
            standing = await connection.fetchrow(_STANDING, self._group, *place)
        return Claim(settled=frozenset(standing["settled"]), parked=frozenset(standing["parked"]), **dict(row))

    async def give_back(self, ended: Sequence[Ended]) -> None:
        """End claims in order: they are no deaths.

        Raises:
            TransientError: The database is away.
        """
        places = [each.place for each in ended]
        columns = [at.topic for at in places], [at.partition for at in places], [each.epoch for each in ended]
        releases = [(*each.place, each.epoch, key) for each in ended for key in each.releases]
        async with self._database.transaction() as connection:
            await connection.execute(_GIVE_BACK, self._group, *columns, [each.attempt_offset for each in ended])
            if releases:
                await connection.execute(_UNMARK_RELEASES, self._group, *zip(*releases, strict=True))

    @asynccontextmanager
    async def begin(self, place: Place, epoch: int) -> AsyncIterator[Settlement]:
        """Open the transaction that settles records of `place`; see `Database.transaction` for its errors."""
        async with self._database.transaction() as connection:
            settlement = Settlement(connection, group=self._group, place=place, epoch=epoch)
            yield settlement
        if settlement.outgoing:
            self.published.set()

    async def ping(self) -> None:
        """Write a row, and take it back: a server that is full, or a standby by now, refuses it.

        Raises:
            TransientError: The database is away.
            PermanentError: It does not take the row.
        """
        with suppress(_UndoneError):
            async with self._database.transaction() as connection:
                await connection.execute(_PING, self._group)
                raise _UndoneError

    async def mark_attempt(self, place: Place, epoch: int, offset: int) -> int:
        """Note, committed, that this record is about to be handled on its own; return how often it was.

        Raises:
            FencedError: The partition is not ours.
        """
        async with self._database.transaction() as connection:
            attempts: int | None = await connection.fetchval(_MARK_ATTEMPT, self._group, *place, epoch, offset)
        if attempts is None:
            raise FencedError
        return attempts


class _UndoneError(Exception):
    """What was written is rolled back."""


def _distinct(
    entries: Sequence[Inbox],
) -> tuple[list[Inbox], dict[tuple[str, str], Inbox], tuple[list[str], list[str], list[bytes]]]:
    """Return the entries as they are stored, the first of each event, and the columns of those."""
    wanted = [Inbox(*map(stored_text, entry)) for entry in entries]
    first: dict[tuple[str, str], Inbox] = {}
    for entry in wanted:
        first.setdefault(entry[:2], entry)
    sources, ids, digests = zip(*first.values(), strict=True)
    return wanted, first, (list(sources), list(ids), [digest_bytes(each) for each in digests])


def digest_bytes(body_sha256: str) -> bytes:
    """Return a digest as it is stored; empty for what is none, as in a foreign record."""
    return bytes.fromhex(body_sha256) if _SHA256.fullmatch(body_sha256) else b""


def _verdict(entry: Inbox, fresh: set[tuple[str, ...]], body_sha256: str) -> Verdict:
    """Judge one event; the first of a call uses up its freshness."""
    if entry[:2] in fresh:
        fresh.discard(entry[:2])
        return "fresh"
    if entry.body_sha256 and body_sha256 and entry.body_sha256 != body_sha256:
        return "conflict"
    return "duplicate"
