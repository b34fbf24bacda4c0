"""Who owns a partition, and how owners before have ended: a record that kills processes is known by what they left.

All of it is committed before a handler runs, and taken back by a process that ends in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bridge.kafka.transport import Place
from consumers.postgres.pool import Connection

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


async def claim(connection: Connection, group: str, place: Place, *, cluster_id: str, again: bool) -> Claim:
    """Take a partition; `again` when the caller itself has had it and is alive, whatever became of that claim."""
    row = await connection.fetchrow(_CLAIM, group, *place, cluster_id, again)
    # A statement of its own: it sees what the owner before us has committed while the claim waited.
    standing = await connection.fetchrow(_STANDING, group, *place)
    return Claim(settled=frozenset(standing["settled"]), parked=frozenset(standing["parked"]), **dict(row))


async def give_back(connection: Connection, group: str, ended: Sequence[Ended]) -> None:
    """End claims in order; one of an epoch that is another's by now is left alone."""
    places = [each.place for each in ended]
    columns = [at.topic for at in places], [at.partition for at in places], [each.epoch for each in ended]
    await connection.execute(_GIVE_BACK, group, *columns, [each.attempt_offset for each in ended])
    releases = [(*each.place, each.epoch, key) for each in ended for key in each.releases]
    if releases:
        await connection.execute(_UNMARK_RELEASES, group, *zip(*releases, strict=True))


async def mark_attempt(connection: Connection, group: str, place: Place, epoch: int, offset: int) -> int | None:
    """Note that a record is about to be handled on its own; return how often it was, or None without the partition."""
    attempts: int | None = await connection.fetchval(_MARK_ATTEMPT, group, *place, epoch, offset)
    return attempts


async def mark_release(connection: Connection, group: str, place: Place, key: str) -> int | None:
    """Note that the release of a key, in text form, begins.

    Returns:
        How often it began without a known end; 0 for a key that is parked no more, None if nobody asks for it any more.
    """
    row = await connection.fetchrow(_MARK_RELEASE, group, *place, key)
    if row is None:
        return 0
    return row["release_attempts"] if row["asked"] else None
