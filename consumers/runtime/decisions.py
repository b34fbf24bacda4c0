"""Carries operators' decisions to another group that reads the same log again: a rebuild beside the live one."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from bridge.errors import ConfigError
from consumers.postgres.pool import Database
from consumers.runtime.ledger import digest_bytes
from consumers.runtime.operator import Decision

# Decisions after which a record is never handled again.
_FINAL = ("skip", "drop_key")

_DECISIONS = """
select 'decision' as kind, at, actor, verb, topic, part, key, "offset", source, event_id, body_sha256, code,
  inbox_written, reason
from drx_consumer.audit where grp = $1 order by number
"""
_PARKED = """
select 'parked' as kind, e.topic, e.part, e."offset", e.key, e.timestamp_ms, e.source, e.event_id, e.event_type,
  e.body_sha256, e.class, e.code, e.attempts, e.parked_at, k.parked_at as key_parked_at, k.release_requested_at,
  case when $2 then e.raw_key end as raw_key, case when $2 then e.value end as value,
  case when $2 then e.headers end as headers
from drx_consumer.parked_event as e join drx_consumer.parked_key as k using (grp, topic, part, key)
where e.grp = $1 order by e.topic, e.part, e."offset"
"""
_IMPORT_SETTLED = """
insert into drx_consumer.settled (grp, topic, part, "offset")
select $1, * from unnest($2::text[], $3::int[], $4::bigint[]) on conflict do nothing
"""
_IMPORT_INBOX = """
insert into drx_consumer.inbox (grp, source, event_id, body_sha256)
select $1, * from unnest($2::text[], $3::text[], $4::bytea[]) on conflict do nothing
"""
_IMPORT_AUDIT = """
insert into drx_consumer.audit (grp, at, actor, verb, reason, topic, part, key, "offset", source, event_id,
  body_sha256, code, inbox_written)
select $1, given.* from unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[],
  $8::text[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bool[])
  as given (at, actor, verb, reason, topic, part, key, "offset", source, event_id, body_sha256, code, inbox_written)
where not exists (
  select from drx_consumer.audit as a
  where (a.grp, a.verb, a.topic, a.part, a."offset") = ($1, given.verb, given.topic, given.part, given."offset")
)
"""


class Carried(NamedTuple):
    """A decision with its trace."""

    at: datetime
    actor: str
    verb: str
    reason: str
    decision: Decision


async def export(database: Database, group: str, *, values: bool = False) -> AsyncIterator[dict[str, Any]]:
    """Give every decision and then every parked event of a group as rows that JSON can hold.

    Keys are health information; what the records hold is in the rows only if `values` are asked for.
    """
    async with database.transaction() as connection:
        await connection.execute("set transaction isolation level repeatable read, read only")
        async for row in connection.cursor(_DECISIONS, group):
            yield _plain(row)
        async for row in connection.cursor(_PARKED, group, values):
            yield _plain(row)


async def import_decisions(
    database: Database, rows: Iterable[Mapping[str, Any]], *, group: str, dry_run: bool = False
) -> list[Decision]:
    """Settle for `group`, before it starts, what was skipped and dropped for another; return what.

    The records count as settled, at their offsets. An event is in the inbox only if the decision had put it there:
    otherwise an equal id was there before, and this group must meet that one afresh. Other rows of an export are
    passed over; importing it again changes nothing.

    Raises:
        ConfigError: A row is not of an export.
    """
    carried = [_carried(number, row) for number, row in enumerate(rows, 1) if row.get("verb") in _FINAL]
    decisions = [each.decision for each in carried]
    if decisions and not dry_run:
        inbox = [each for each in decisions if each.inbox_written]
        async with database.transaction() as connection:
            await connection.execute(
                _IMPORT_SETTLED,
                group,
                [each.topic for each in decisions],
                [each.partition for each in decisions],
                [each.offset for each in decisions],
            )
            await connection.execute(
                _IMPORT_INBOX,
                group,
                [each.source for each in inbox],
                [each.event_id for each in inbox],
                [digest_bytes(each.body_sha256 or "") for each in inbox],
            )
            flat = [(*each[:4], *each.decision) for each in carried]
            await connection.execute(_IMPORT_AUDIT, group, *(list(column) for column in zip(*flat, strict=True)))
    return decisions


def _carried(number: int, row: Mapping[str, Any]) -> Carried:
    try:
        decision = Decision(
            topic=str(row["topic"]),
            partition=int(row["part"]),
            key=str(row["key"]),
            offset=int(row["offset"]),
            source=str(row["source"]),
            event_id=str(row["event_id"]),
            body_sha256=str(row["body_sha256"]),
            code=str(row["code"]),
            inbox_written=row["inbox_written"] is True,
        )
        at = datetime.fromisoformat(row["at"])
        return Carried(at, str(row["actor"]), str(row["verb"]), str(row["reason"]), decision)
    except (KeyError, TypeError, ValueError):
        msg = f"row {number} is not of an export"
        raise ConfigError(msg) from None  # the text would quote the row


def _plain(row: Any) -> dict[str, Any]:
    plain = dict(row)
    for name, content in plain.items():
        if isinstance(content, datetime):
            plain[name] = content.isoformat()
        elif isinstance(content, bytes):
            plain[name] = b64encode(content).decode()
    if plain.get("headers") is not None:
        plain["headers"] = orjson.loads(plain["headers"])
    return plain
