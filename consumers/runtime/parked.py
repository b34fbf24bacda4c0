"""What is parked, for a person to look at; what the records hold is shown only when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from consumers.postgres.pool import Database

# A list is for eyes; an export gives everything.
LIST_MAX = 1_000

_LIST = """
select topic, part as partition, key, class as cls, code, attempts, parked_at, release_requested_at,
  release_requested_by, e.events, e.first_offset
from drx_consumer.parked_key as k, lateral (
  select count(*) as events, min("offset") as first_offset
  from drx_consumer.parked_event as e where (e.grp, e.topic, e.part, e.key) = (k.grp, k.topic, k.part, k.key)
) as e
where grp = $1 and ($2::text is null or class = $2) and ($3::text is null or code = $3)
  and ($4::text is null or topic = $4) and parked_at <= clock_timestamp() - $5::interval
order by parked_at, topic, part, key limit $6
"""
_SHOW = """
select topic, part as partition, "offset", key, timestamp_ms, source, event_id, event_type, body_sha256,
  class as cls, code, attempts, parked_at,
  case when $4 then raw_key end as raw_key, case when $4 then value end as value,
  case when $4 then headers end as headers
from drx_consumer.parked_event where grp = $1 and topic = $2 and key = $3 order by part, "offset"
"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which parked keys: those that meet all that is given."""

    cls: str | None = None
    code: str | None = None
    topic: str | None = None
    older_s: float = 0.0

    def criteria(self) -> tuple[str | None, str | None, str | None, timedelta]:
        """Return class, code, topic and age, in this order, as arguments of a statement."""
        return self.cls, self.code, self.topic, timedelta(seconds=self.older_s)


class ParkedKey(NamedTuple):
    """A parked key, why, and how much waits there; `key` is in text form."""

    topic: str
    partition: int
    key: str
    cls: str
    code: str
    attempts: int
    parked_at: datetime
    release_requested_at: datetime | None
    release_requested_by: str | None
    events: int
    first_offset: int | None


class WaitingEvent(NamedTuple):
    """A parked record; the last three only when values were asked for (`headers` as JSON: `[[name, base64], …]`)."""

    topic: str
    partition: int
    offset: int
    key: str
    timestamp_ms: int
    source: str
    event_id: str
    event_type: str
    body_sha256: str
    cls: str
    code: str
    attempts: int
    parked_at: datetime
    raw_key: bytes | None
    value: bytes | None
    headers: str | None


async def list_parked(
    database: Database,
    group: str,
    filters: Filters = Filters(),
    *,
    limit: int = LIST_MAX,
) -> list[ParkedKey]:
    """Return parked keys, the oldest first."""
    async with database.transaction() as connection:
        return [ParkedKey(*row) for row in await connection.fetch(_LIST, group, *filters.criteria(), limit)]


async def show(database: Database, group: str, topic: str, key: str, *, values: bool = False) -> list[WaitingEvent]:
    """Return what waits under a key, by partition and in order; what records hold only if `values` are asked for."""
    async with database.transaction() as connection:
        return [WaitingEvent(*row) for row in await connection.fetch(_SHOW, group, topic, key, values)]
