"""Parking: a record that cannot be settled is stored in PostgreSQL, and its key waits until it is released, in order.

`parked_key` has a row per key and partition, `parked_event` its complete records. `park` stores a failed record,
`append` each later one of its key, both in the `Settlement` that moves progress past it. The row of the key is the lock
for all operations on the key. Under that lock, its owner releases record by record (`head`, the effects, `release`),
and operators decide (`operator`). Once the last record is released, the key is no longer parked.

A key is stored as text (`key_text`), for operators and SQL. If too much is parked, `ParkingFullError` rolls the
transaction back.
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import orjson

from bridge.errors import BridgeError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.record import PART_SHA256
from consumers.postgres.pool import Connection, Database
from consumers.postgres.text import TEXT_MAX_BYTES, stored_text
from consumers.runtime.ledger import Settlement

# Keys of a group and events of a key. A bad day may park a hundred keys, and a prescription has far fewer than a
# thousand events: beyond these limits something else is wrong, and the partition stops.
KEYS_MAX = 10_000
EVENTS_OF_KEY_MAX = 1_000

# Maximum length, for people to read.
LIST_MAX = 1_000

# Waits while an operator deletes the key, and then inserts instead of updating.
_PARK_KEY = """
insert into drx_consumer.parked_key as k (grp, topic, key, part, class, code, attempts)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (grp, topic, part, key) do update set class = k.class
returning xmax = 0 as new
"""
_PARK_EVENT = """
insert into drx_consumer.parked_event (grp, topic, key, part, "offset", timestamp_ms, raw_key, value, headers,
  source, event_id, event_type, body_sha256, class, code, attempts, raised)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, nullif($17, ''))
on conflict do nothing
"""
_LOCK_KEY = """
select release_requested_at is not null as asked from drx_consumer.parked_key
where grp = $1 and topic = $2 and part = $3 and key = $4 for update
"""
_COUNT_KEYS = "select count(*) from drx_consumer.parked_key where grp = $1"
_COUNT_EVENTS = """
select count(*) from drx_consumer.parked_event where grp = $1 and topic = $2 and part = $3 and key = $4
"""
_HEAD = """
select "offset", timestamp_ms, raw_key, value, headers
from drx_consumer.parked_event where grp = $1 and topic = $2 and part = $3 and key = $4 order by "offset" limit 1
"""
_RELEASE_EVENT = """
delete from drx_consumer.parked_event where grp = $1 and topic = $2 and part = $3 and "offset" = $4
"""
_RELEASE_KEY = """
delete from drx_consumer.parked_key as k where grp = $1 and topic = $2 and part = $3 and key = $4 and not exists (
  select from drx_consumer.parked_event as e where (e.grp, e.topic, e.part, e.key) = (k.grp, k.topic, k.part, k.key)
) returning true
"""
_FAILED_KEY = """
update drx_consumer.parked_key set class = $5, code = $6, attempts = attempts + $7,
  release_requested_at = null, release_requested_by = null
where grp = $1 and topic = $2 and part = $3 and key = $4
"""
_FAILED_EVENT = """
update drx_consumer.parked_event set class = $5, code = $6, attempts = attempts + $7, raised = nullif($8, '')
where grp = $1 and topic = $2 and part = $3 and "offset" = $4
"""
_REQUESTED = """
select k.topic, k.part, k.key from drx_consumer.parked_key as k
join unnest($2::text[], $3::int[]) as owned (topic, part) using (topic, part)
where k.grp = $1 and k.release_requested_at <= clock_timestamp()
order by k.release_requested_at, k.topic, k.part, k.key
"""
_BY_HAND = """
select k.topic, k.part, k.key from drx_consumer.parked_key as k
join unnest($2::text[], $3::int[]) as owned (topic, part) using (topic, part)
where k.grp = $1 and k.class = 'operator'
"""
_CENSUS = """
select
  (select count(*) from drx_consumer.parked_key where grp = $1) as keys,
  (select count(*) from drx_consumer.parked_event where grp = $1) as events,
  (select coalesce(extract(epoch from clock_timestamp() - min(parked_at)), 0)::float8
   from drx_consumer.parked_key where grp = $1) as oldest_age_s
"""
_LIST = """
select topic, part as partition, key, class, code, attempts, parked_at, release_requested_at,
  release_requested_by, e.events, e.first_offset, e.raised
from drx_consumer.parked_key as k, lateral (
  select count(*) as events, min("offset") as first_offset, (array_agg(raised order by "offset"))[1] as raised
  from drx_consumer.parked_event as e where (e.grp, e.topic, e.part, e.key) = (k.grp, k.topic, k.part, k.key)
) as e
where grp = $1 and ($2::text is null or class = $2) and ($3::text is null or code = $3)
  and ($4::text is null or topic = $4) and ($5::text[] is null or key = any($5))
order by parked_at, topic, part, key limit $6
"""
_SHOW = """
select topic, part as partition, "offset", key, timestamp_ms, source, event_id, event_type, body_sha256,
  class, code, attempts, raised, parked_at,
  case when $4 then raw_key end as raw_key, case when $4 then value end as value,
  case when $4 then headers end as headers
from drx_consumer.parked_event where grp = $1 and topic = $2 and key = $3 order by part, "offset"
"""


class Why(NamedTuple):
    """Why a record is parked."""

    cls: str  # class of the failure, or `behind` if it only waits for an earlier record of its key
    code: str
    attempts: int  # attempts, including those of releases
    raised: str = ""  # as in `failure.Park`


class Filters(NamedTuple):
    """Conditions for parked keys, all of which must hold; `keys` are in text form."""

    cls: str | None = None
    code: str | None = None
    topic: str | None = None
    keys: Sequence[str] | None = None


class StoppedError(BridgeError):
    """A partition stops until an operator acts."""

    # The command for the operator, with `{name}` for the consumer and `{topic}` for the partition's topic.
    command: ClassVar[str]


class ParkingFullError(StoppedError):
    """A limit is reached: the partition stops until there is room, since records are never dropped."""

    code = "parking_full"
    # Without the key, which is health information.
    command = "drx-consumer parked retry {name} KEY --topic {topic}; parked list {name} names the keys"

    def __init__(self, key: str | None = None) -> None:
        super().__init__(self.code)
        self.key = key  # the key with too many events, in text form; None if the group has too many keys


class WithdrawnError(Exception):
    """A key is parked, and its release is no longer requested."""


def key_text(record: ConsumedRecord) -> str:
    """Return the key of a record as a string: unchanged if it is UTF-8, else escaped.

    Records without a key have no order, so each gets a unique string.
    """
    key = record.key
    if key is None:
        return f"\\null@{record.offset}"
    if len(key) > TEXT_MAX_BYTES:
        return "\\h" + hashlib.sha256(key).hexdigest()
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return "\\x" + key.hex()
    return "\\x" + key.hex() if "\0" in text or text.startswith("\\") else text


async def park(settlement: Settlement, record: ConsumedRecord, why: Why) -> None:
    """Park a record and its key; later records of the key must be appended."""
    connection, group, key = settlement.connection, settlement.group, key_text(record)
    new = await connection.fetchval(_PARK_KEY, group, record.topic, key, record.partition, *why[:3])
    if new and await connection.fetchval(_COUNT_KEYS, group) > KEYS_MAX:
        raise ParkingFullError
    await _store(settlement, record, key, why)


async def append(settlement: Settlement, record: ConsumedRecord) -> bool:
    """Park a record after the others of its key; False, with nothing done, if the key is no longer parked."""
    key = key_text(record)
    if await _lock(settlement, key) is None:
        return False
    await _store(settlement, record, key, Why("behind", "key_parked", 0))
    return True


async def head(settlement: Settlement, key: str, *, asked: bool = False) -> ConsumedRecord | None:
    """Lock a key, given in text form, and return its first record; None if the key is not parked.

    A key that was parked manually, without records since, is then no longer parked. Raises `WithdrawnError` if the
    release must be `asked` for and no longer is.
    """
    locked = await _lock(settlement, key)
    if locked is None:
        return None
    if asked and not locked["asked"]:
        raise WithdrawnError
    which = (settlement.group, *settlement.tp, key)
    row = await settlement.connection.fetchrow(_HEAD, *which)
    if row is None:
        await settlement.connection.fetchval(_RELEASE_KEY, *which)
        return None
    headers = [(name, b64decode(content)) for name, content in orjson.loads(row["headers"])]
    return ConsumedRecord(*settlement.tp, row["offset"], row["timestamp_ms"], row["raw_key"], row["value"], headers)


async def release(settlement: Settlement, record: ConsumedRecord) -> bool:
    """Remove the applied record that `head` returned; True if the key is no longer parked."""
    connection, tp = settlement.connection, (settlement.group, *settlement.tp)
    await connection.execute(_RELEASE_EVENT, *tp, record.offset)
    return bool(await connection.fetchval(_RELEASE_KEY, *tp, key_text(record)))


async def park_again(settlement: Settlement, record: ConsumedRecord, why: Why) -> None:
    """Keep the record that `head` returned parked after another failure; its key waits for another request.

    The attempts are those of this release only.
    """
    connection, tp = settlement.connection, (settlement.group, *settlement.tp)
    await connection.execute(_FAILED_KEY, *tp, key_text(record), *why[:3])
    await connection.execute(_FAILED_EVENT, *tp, record.offset, *why)


async def requested(
    database: Database, group: str, tps: Collection[TopicPartition]
) -> list[tuple[TopicPartition, str]]:
    """Return the keys, in text form, of `tps` whose release is requested and due, the longest due first."""
    return await _keys(database, _REQUESTED, group, tps)


async def by_hand(database: Database, group: str, tps: Collection[TopicPartition]) -> list[tuple[TopicPartition, str]]:
    """Return the keys, in text form, of `tps` that an operator has parked."""
    return await _keys(database, _BY_HAND, group, tps)


async def has_room(connection: Connection, group: str, tp: TopicPartition, full: ParkingFullError) -> bool:
    """Return whether there is room again below the limit that stopped `tp`."""
    if full.key is None:
        return int(await connection.fetchval(_COUNT_KEYS, group)) < KEYS_MAX
    return int(await connection.fetchval(_COUNT_EVENTS, group, *tp, full.key)) < EVENTS_OF_KEY_MAX


async def census(database: Database, group: str) -> tuple[int, int, float]:
    """Return the number of parked keys and events of a group, and the age in seconds of the oldest key (or 0)."""
    ((keys, events, oldest_age_s),) = await database.fetch(_CENSUS, group)
    return keys, events, oldest_age_s


async def list_parked(
    database: Database, group: str, filters: Filters, *, limit: int = LIST_MAX
) -> list[dict[str, Any]]:
    """Return parked keys, the oldest first: the columns of `_LIST`; `raised` is of the first record."""
    return [dict(row) for row in await database.fetch(_LIST, group, *filters, limit)]


async def show(database: Database, group: str, topic: str, key: str, *, values: bool = False) -> list[dict[str, Any]]:
    """Return the records of a key, by partition and in order: the columns of `_SHOW`.

    Raw key, value and headers (JSON, `[[name, base64], …]`) are None without `values`.
    """
    return [dict(row) for row in await database.fetch(_SHOW, group, topic, key, values)]


async def _keys(
    database: Database, query: str, group: str, tps: Collection[TopicPartition]
) -> list[tuple[TopicPartition, str]]:
    topics, partitions = [at.topic for at in tps], [at.partition for at in tps]
    rows = await database.fetch(query, group, topics, partitions)
    return [(TopicPartition(topic, partition), key) for topic, partition, key in rows]


async def _lock(settlement: Settlement, key: str) -> Any:
    return await settlement.connection.fetchrow(_LOCK_KEY, settlement.group, *settlement.tp, key)


async def _store(settlement: Settlement, record: ConsumedRecord, key: str, why: Why) -> None:
    """Insert the record; the key's row is locked."""
    connection, group = settlement.connection, settlement.group
    if await connection.fetchval(_COUNT_EVENTS, group, *settlement.tp, key) >= EVENTS_OF_KEY_MAX:
        raise ParkingFullError(key)
    names = ("ce_source", "ce_id", "ce_type", PART_SHA256 if record.header(PART_SHA256) else "drx_body_sha256")
    headers = [[stored_text(name), b64encode(content).decode()] for name, content in record.headers]
    await connection.execute(
        _PARK_EVENT,
        *(group, record.topic, key, record.partition, record.offset, record.timestamp_ms),
        *(record.key, record.value, orjson.dumps(headers).decode()),
        *(stored_text(record.header(name)) for name in names),
        *why,
    )
