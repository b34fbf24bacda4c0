"""The progress of a group, stored in PostgreSQL together with the effects of its handlers: exactly once.

`progress` has a row per partition. All records below `next_offset` are settled; records settled at or above it (lanes
finish out of order) are listed in `settled`, and pruned once `next_offset` has passed them. `inbox` has a row per event
that was applied.

A process claims a partition before it reads it: the claim gives the row a new `epoch`. One transaction then settles
records: `admit` (which events are new?), the effects of the handlers, `settle` (move `next_offset`). Both fail if the
epoch is not ours, because another process has claimed the partition. They also fail if the row is older than the last
commit of this process: a restored or failed-over database has lost commits. `admit` fails before a handler sends out
data from lost facts; `settle` rolls back the effects of a process that lost the partition meanwhile. Batches call
`fence` first, which checks `next_offset` and locks the row, so that no work is done on a batch that is already lost.
Lanes do not, since they would wait for each other at that lock. This needs READ COMMITTED, where a statement that
waited for another transaction reads again.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from bridge.errors import BridgeError
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import Outgoing
from consumers.postgres.pool import Connection, Database
from consumers.postgres.text import TEXT_MAX_BYTES, stored_text

InboxState = Literal["fresh", "duplicate", "conflict"]

_Columns = tuple[list[str], list[str], list[bytes]]

_SHA256 = re.compile(r"[0-9a-f]{64}")

_CLAIM = """
insert into drx_consumer.progress as p (grp, topic, part, cluster_id)
values ($1, $2, $3, $4)
on conflict (grp, topic, part) do update set epoch = default, updated_at = clock_timestamp()
returning epoch, next_offset, last_event_id, cluster_id, updated_at
"""
_STANDING = """
select
  array(select "offset" from drx_consumer.settled where grp = $1 and topic = $2 and part = $3) as settled,
  array(select key from drx_consumer.parked_key where grp = $1 and topic = $2 and part = $3) as parked
"""
# Locks the row until the end of the transaction, so that a claim waits for it; writes nothing.
_FENCE = """
select from drx_consumer.progress
where grp = $1 and topic = $2 and part = $3 and epoch = $4 and coalesce(next_offset <= $6, true)
  and ($5::timestamptz is null or updated_at >= $5)
for no key update
"""
# In the order of the index, so that two partitions with several common ids wait for each other instead of deadlocking.
# Returns only ids that existed before, nearly always none, and a row of nulls if the partition is not ours.
_ADMIT = """
with ours as (
  select from drx_consumer.progress
  where grp = $1 and topic = $2 and part = $3 and epoch = $4 and ($5::timestamptz is null or updated_at >= $5)
), given as materialized (
  select * from unnest($6::text[], $7::text[], $8::bytea[]) as given (source, event_id, body_sha256)
), fresh as (
  insert into drx_consumer.inbox (grp, source, event_id, body_sha256)
  select $1, source, event_id, body_sha256 from given where exists (select from ours)
  order by source collate "C", event_id collate "C"
  on conflict do nothing
  returning source, event_id
)
select source, event_id from given except select source, event_id from fresh
union all select null, null where not exists (select from ours)
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
    -- Later at each commit, even if the clock was set back: shows whether a commit was lost. So under one epoch
    -- nothing else may set it.
    updated_at = greatest(clock_timestamp(), p.updated_at + interval '1 microsecond')
  where grp = $1 and topic = $2 and part = $3 and epoch = $4 and ($8::timestamptz is null or p.updated_at >= $8)
  returning p.next_offset, p.updated_at
), pruned as (
  delete from drx_consumer.settled as s using moved
  where grp = $1 and topic = $2 and part = $3 and s."offset" < moved.next_offset
), noted as (
  insert into drx_consumer.settled (grp, topic, part, "offset")
  select $1, $2, $3, above from unnest($7::bigint[]) as above, moved where above >= moved.next_offset
  on conflict do nothing
)
select updated_at from moved
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


@dataclass(slots=True)
class Claim:
    """The state of a partition when this process claims it; `parked` and `updated_at` are kept up to date."""

    epoch: int
    next_offset: int | None  # all records below are settled; None if the partition is unknown
    last_event_id: str | None  # `stored_text` of the `ce_id` of the record before `next_offset`, if there was one
    cluster_id: str | None  # the Kafka cluster that the offsets belong to
    settled: frozenset[int]  # settled offsets at or above `next_offset`
    parked: set[str]  # parked keys, in text form
    updated_at: datetime  # as last read or committed by this process


class Inbox(NamedTuple):
    """Identity of an event. The hex digest of its body distinguishes a repeat from another event with this id."""

    source: str
    event_id: str
    body_sha256: str


class FencedError(BridgeError):
    """Another process has claimed the partition, or commits of this one were lost; the transaction is rolled back."""

    code = "fenced"


class Settlement:
    """One transaction that settles records of a partition."""

    def __init__(
        self, connection: Connection, *, group: str, tp: TopicPartition, epoch: int, known: datetime | None
    ) -> None:
        self.connection = connection  # inside the transaction; passed to handlers
        self.group = group
        self.tp = tp
        # Records published by handlers; written to the outbox at the end of the transaction.
        self.outgoing: list[Outgoing] = []
        self._where = (group, tp.topic, tp.partition, epoch)
        self._known = known

    async def fence(self, first: int) -> None:
        """Lock the partition; `FencedError` if it is not ours, commits were lost, or `next_offset` is above `first`."""
        if await self.connection.fetchrow(_FENCE, *self._where, self._known, first) is None:
            raise FencedError

    async def admit(self, entries: Sequence[Inbox]) -> list[InboxState]:
        """Insert events into the inbox; return for each whether it is `fresh`, so that it must be applied.

        Waits for another transaction that has admitted the same event. A rollback removes the events from the inbox.

        Raises:
            FencedError: The partition is not ours, or commits were lost; without a lock, so this may also happen
                afterwards.
        """
        if not entries:
            return []
        wanted, first, columns = _distinct(entries)
        rows = await self.connection.fetch(_ADMIT, *self._where, self._known, *columns)
        known = {(source, event_id) for source, event_id in rows}
        if (None, None) in known:
            raise FencedError
        # A separate statement, which sees commits of other transactions that the first one waited for.
        before = await _digests(self.connection, self.group, columns) if known else {}
        return _states(wanted, first | before, first.keys() - known)

    async def settle(self, *, next_offset: int, last_event_id: str | None, above: Sequence[int]) -> datetime:
        """Advance progress to `next_offset`, never back; store offsets settled `above` it, and published records.

        `last_event_id` is the `ce_id` of the record at `next_offset` - 1, or None if there is no such record. Returns
        the committed `updated_at`. Raises `FencedError` like `admit`.
        """
        if self.outgoing:
            columns = [list(column) for column in zip(*self.outgoing, strict=True)]
            columns[3] = [json.dumps(headers) for headers in columns[3]]
            await self.connection.execute(_PUBLISH, self.group, *self.tp, *columns)
        last = None if last_event_id is None else stored_text(last_event_id)
        updated_at: datetime | None = await self.connection.fetchval(
            _SETTLE, *self._where, next_offset, last, list(above), self._known
        )
        if updated_at is None:
            raise FencedError
        return updated_at


class Ledger:
    """Claims the partitions of one group and opens the transactions that settle their records."""

    def __init__(self, database: Database, *, group: str, cluster_id: str) -> None:
        """`cluster_id` is the Kafka cluster recorded for new partitions."""
        self._database = database
        self._group = group
        self._cluster_id = cluster_id
        self.published = asyncio.Event()  # set when the outbox has new records

    async def claim(self, tp: TopicPartition) -> Claim:
        """Claim a partition, so that its former owner's transactions fail; `TransientError` while one locks the row."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_CLAIM, self._group, *tp, self._cluster_id)
            # A separate statement, which sees commits of the former owner that the claim waited for.
            standing = await connection.fetchrow(_STANDING, self._group, *tp)
        return Claim(settled=frozenset(standing["settled"]), parked=set(standing["parked"]), **dict(row))

    @asynccontextmanager
    async def begin(self, tp: TopicPartition, epoch: int, known: datetime | None = None) -> AsyncIterator[Settlement]:
        """Open the transaction that settles records of `tp`; see `Database.transaction` for its errors.

        `known` is the latest `updated_at` committed by this claim.
        """
        async with self._database.transaction(calls_services=True) as connection:
            settlement = Settlement(connection, group=self._group, tp=tp, epoch=epoch, known=known)
            yield settlement
        if settlement.outgoing:
            self.published.set()

    async def look(self, entries: Sequence[Inbox]) -> list[InboxState]:
        """Return what `Settlement.admit` would return now, without writing. Another process may still admit them."""
        if not entries:
            return []
        wanted, first, columns = _distinct(entries)
        before = await _digests(self._database, self._group, columns)
        return _states(wanted, first | before, set(first.keys() - before.keys()))

    async def ping(self) -> None:
        """Write a row and roll it back, which a full server or a standby refuses."""
        with suppress(_UndoneError):
            async with self._database.transaction() as connection:
                await connection.execute(_PING, self._group)
                raise _UndoneError


class _UndoneError(Exception):
    """Rolls the transaction back."""


async def _digests(source: Connection | Database, group: str, columns: _Columns) -> dict[tuple[str, ...], str]:
    """Return the digests of the events that are in the inbox."""
    rows = await source.fetch(_ADMITTED_BEFORE, group, *columns[:2])
    return {(row["source"], row["event_id"]): row["body_sha256"].hex() for row in rows}


def digest_bytes(body_sha256: str) -> bytes:
    """Return a digest as stored; empty if invalid, as in a foreign record."""
    return bytes.fromhex(body_sha256) if _SHA256.fullmatch(body_sha256) else b""


def _distinct(entries: Sequence[Inbox]) -> tuple[Sequence[Inbox], dict[tuple[str, ...], str], _Columns]:
    """Return the entries as stored, the digest of the first entry of each event, and the columns of those."""
    wanted = entries if _are_stored_texts(entries) else [Inbox(*map(stored_text, entry)) for entry in entries]
    first: dict[tuple[str, ...], str] = {}
    for entry in wanted:
        first.setdefault(entry[:2], entry.body_sha256)
    sources, ids = zip(*first, strict=True)
    return wanted, first, (list(sources), list(ids), list(map(digest_bytes, first.values())))


def _are_stored_texts(entries: Sequence[Inbox]) -> bool:
    """Return whether `stored_text` certainly changes none of them; all at once, for thousands a second."""
    texts = list(map("".join, entries))
    return max(map(len, texts)) * 4 <= TEXT_MAX_BYTES and "\0" not in "".join(texts)


def _states(
    entries: Sequence[Inbox], digests: Mapping[tuple[str, ...], str], fresh: set[tuple[str, ...]]
) -> list[InboxState]:
    """Return the state of each event; of several equal ones only the first is fresh, others are compared by digest."""
    if len(fresh) == len(entries):  # nearly always
        return ["fresh"] * len(entries)
    states: list[InboxState] = []
    for entry in entries:
        known = digests[entry[:2]]
        if entry[:2] in fresh:
            fresh.discard(entry[:2])
            states.append("fresh")
        elif entry.body_sha256 and known and entry.body_sha256 != known:
            states.append("conflict")
        else:
            states.append("duplicate")
    return states
