"""`drx-consumer where`: show what happened to an event, from Kafka, PostgreSQL and this host's spool."""

import asyncio
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.errors import DecodeError
from bridge.event import UNRECOGNIZED_TYPE, instant
from bridge.kafka.accepted import from_entry
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.key_input import has_number, whole_key
from bridge.kafka.reader import ReadError, open_reader
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.known.derived_ids import HASH_CHARS, PREFIX
from bridge.runtime.audit import audited
from bridge.runtime.findings import counted
from bridge.runtime.process import bootstrap_option
from bridge.runtime.screen import print_json, print_rows
from bridge.settings import load_settings
from bridge.spool.inspect import survey
from bridge.spool.keys import KeyRing
from bridge.spool.segment import Entry
from consumers.commands.installed import Chosen, choose
from consumers.commands.options import json_option, phi_options
from consumers.commands.timeline import history_of, print_history
from consumers.postgres.pool import Database
from consumers.postgres.text import stored_text
from consumers.read_model.options import NAME
from consumers.runtime.groups import open_group
from consumers.runtime.operator import By, standings
from consumers.runtime.start_positions import WORDS, why_stopped
from consumers.runtime.transport import Bounds

# Maximum records shown, the newest ones; a prescription has some ten events.
EVENTS_MAX = 1_000
IN_SPOOL = -1
# Members shown only if there are several documents.
_OF_ONE = ("id", "type", "by")

_Places = dict[tuple[str, int, int], ConsumedRecord]

# By the primary key, source by source.
_HISTORY = """
with recursive s as (
  (select source from "{schema}".event order by source limit 1)
  union all
  select (select e.source from "{schema}".event e where e.source > s.source order by e.source limit 1)
  from s where s.source is not null
), found as (
  select e.* from s join "{schema}".event e
  on e.source = s.source and (e.event_id = $1 or (e.event_id > $1 || '/' and e.event_id < $1 || '0'))
  union all select e.* from "{schema}".event e where e.prescription_id = $1
)
select topic, partition as part, "offset", source, event_id, event_type, received_at from found
order by received_at desc limit $2
"""
# Keys of a vendor's number without prefix. Each source has one prefix, taken from its first event.
_WHOLE = """
with recursive s as (
  (select source from "{schema}".event order by source limit 1)
  union all
  select (select e.source from "{schema}".event e where e.source > s.source order by e.source limit 1)
  from s where s.source is not null
)
select distinct p.prefix || $1 as key from s cross join lateral (
  select split_part(e.prescription_id, ':', 1) || ':' as prefix from "{schema}".event e
  where e.source = s.source and e.prescription_id is not null limit 1
) p where exists (select from "{schema}".event e where e.prescription_id = p.prefix || $1)
"""
# A discarded record may be in no history.
_SET_ASIDE = """
select topic, part, "offset", source, event_id, event_type, to_timestamp(timestamp_ms / 1000.0) as received_at
from drx_consumer.parked_event where event_id = $1 or starts_with(event_id, $1 || '/') or key = $1
union all
select topic, part, "offset", source, event_id, '', null from drx_consumer.audit
where "offset" is not null and event_id <> '' and (event_id = $1 or starts_with(event_id, $1 || '/') or key = $1)
order by received_at desc nulls last limit $2
"""
_GROUPS = """
select p.grp, p.next_offset, i.settled_at, k.code as parked, k.parked_at, d.at as skipped_at, d.code as skipped,
  exists (
    select from drx_consumer.settled s where (s.grp, s.topic, s.part, s."offset") = (p.grp, p.topic, p.part, $3)
  ) as settled,
  (select count(*) from drx_consumer.parked_event b
   where (b.grp, b.topic, b.part, b.key) = (k.grp, k.topic, k.part, k.key) and b."offset" > $3) as behind,
  (select max(code::timestamptz) from drx_consumer.audit where grp = p.grp and verb = 'prune') as pruned_before
from drx_consumer.progress p
left join drx_consumer.inbox i on (i.grp, i.source, i.event_id) = (p.grp, $4, $5)
left join drx_consumer.parked_event k on (k.grp, k.topic, k.part, k."offset") = (p.grp, p.topic, p.part, $3)
left join lateral (
  select a.at, a.code from drx_consumer.audit a
  where a.grp = p.grp and a.verb in ('skip', 'drop_key') and (a.topic, a.part, a."offset") = (p.topic, p.part, $3)
  order by a.number desc limit 1
) d on true
where p.topic = $1 and p.part = $2 order by p.grp
"""


@click.command()
@click.argument("wanted", metavar="ID")
@click.option("--from-beginning", is_flag=True, help="Search the whole log, also for pruned events.")
@click.option(
    "--history", is_flag=True, help="Show the state of the prescription ID and its events, by the read model."
)
@click.option("--schema", help="Schema of the read model, if it is another.")
@phi_options
@json_option
@bootstrap_option
def where(
    *,
    wanted: str,
    from_beginning: bool,
    history: bool,
    schema: str | None,
    show_phi: bool,
    by: By,
    as_json: bool,
    bootstrap_servers: str | None,
) -> int:
    """Show what happened to ID: an event, a delivery or a prescription. Exit 1 if it is unknown, or a group stopped.

    A vendor's prescription is also found without the prefix of its source, unless several vendors have the number.

    The read model's history locates records. Beyond what it has read, and in drx.unrecognized.v1, the log is searched.
    The spool is that of BRIDGE_SPOOL__DIR, if this host has one.
    """
    wanted = stored_text(wanted.encode(errors="replace").decode())
    if not wanted:
        raise click.UsageError("ID is empty")
    chosen = choose(NAME, schema=schema, bootstrap_servers=bootstrap_servers)
    if history and from_beginning:
        raise click.UsageError("--history reads the read model only; omit --from-beginning")
    with audited("where", show_phi=True, history=history, **by._asdict()) as ended:
        if history:
            document = asyncio.run(history_of(chosen, wanted, show_phi=show_phi))
            ended["records"] = len(document["events"])
            return print_history(document, show_phi=show_phi, as_json=as_json)
        found = asyncio.run(_where(chosen, wanted, from_beginning=from_beginning, show_phi=show_phi))
        ended["records"] = len(found)
    if not found:
        click.echo("nothing has that id; if it was refused, see `drx-bridge log --failed`", err=True)
        return 1
    code = int(any(group["state"] == "stopped" for each in found for group in each["groups"].values()))
    if as_json:
        newest = {name: value for name, value in found[-1].items() if name not in _OF_ONE}
        every = [{name: value for name, value in each.items() if name != "by"} for each in found]
        document = newest | {"events": every} if len(found) > 1 else newest
        print_json(document)
        return code
    print_rows(("at", "what", "state", "detail"), [row for each in found for row in _rows(each)])
    for each in found if show_phi else ():
        print_json(each["value"], indented=True)
    return code


async def _where(chosen: Chosen, wanted: str, *, from_beginning: bool, show_phi: bool) -> list[dict[str, Any]]:
    """Return a document for each record; during an outage of Kafka, a record may be in the spool."""
    registry, failure = chosen.settings.registry, None
    async with chosen.open_database("where") as database:
        # In this order, a record that moves meanwhile, from spool to log to history, is found twice instead of missed.
        wanted = await _whole(database, chosen, wanted)
        spooled = await asyncio.to_thread(_spooled, wanted)
        stored = await standings(database, chosen.consumer.group, chosen.consumer.topics)
        records = await _located(database, chosen, wanted)
        # If the event id comes from the body, no table stores the hash-based delivery id.
        is_whole = from_beginning or (wanted.startswith(PREFIX) and not records)
        starts = {} if is_whole else {at: each.next_offset or 0 for at, each in stored.items()}
        ends: dict[TopicPartition, int] = {}
        for topics in (chosen.consumer.topics, (UNRECOGNIZED_TOPIC,)):
            try:
                ends |= await _read(chosen, topics, records, wanted=wanted, starts=starts)
            except ReadError as exc:
                failure = exc
        records, spooled = _of_one_key(records, wanted), _of_one_key(spooled, wanted)
        in_log = {_identity(each) for each in records.values()}
        records |= {at: each for at, each in spooled.items() if _identity(each) not in in_log}
        if failure is not None and not records:
            raise failure
        if failure is not None:
            click.echo(str(failure), err=True)
        ordered = sorted(records.values(), key=lambda each: (each.header("drx_received_at"), each[:3]))[-EVENTS_MAX:]
        async with open_decoder(registry) as decoder:
            return [
                await _document(each, await _groups(database, each, ends), decoder, show_phi=show_phi)
                for each in ordered
            ]


async def _whole(database: Database, chosen: Chosen, wanted: str) -> str:
    """Return the key of a vendor's number, if the history has one; else `wanted`."""
    if not await _has_history(database, chosen):
        return wanted
    rows = await database.fetch(_WHOLE.format(schema=chosen.schema), wanted)
    keys = {row["key"].encode() for row in rows}
    return (
        whole_key(wanted.encode(), keys).decode() if keys and not await _located(database, chosen, wanted) else wanted
    )


def _of_one_key(records: _Places, wanted: str) -> _Places:
    """Remove prescriptions that only have the number, if a record has the id itself."""
    numbered = {
        at for at, each in records.items() if has_number(each.key, wanted.encode()) and not _is_id(each, wanted)
    }
    if len(numbered) < len(records):
        return {at: each for at, each in records.items() if at not in numbered}
    whole_key(wanted.encode(), {each.key or b"" for each in records.values()})
    return records


async def _has_history(database: Database, chosen: Chosen) -> bool:
    return bool(await database.fetch("select where to_regclass($1) is not null", f'"{chosen.schema}".event'))


async def _located(database: Database, chosen: Chosen, wanted: str) -> _Places:
    """Return the records of the read model's history and the parked ones, without content."""
    queries = [_SET_ASIDE]
    if await _has_history(database, chosen):
        queries.append(_HISTORY.format(schema=chosen.schema))
    found: _Places = {}
    for row in [row for query in queries for row in await database.fetch(query, wanted, EVENTS_MAX)]:
        received = "" if row["received_at"] is None else instant(row["received_at"])
        names = ("ce_source", "ce_id", "ce_type", "drx_received_at")
        headers = zip(names, (row["source"], row["event_id"], row["event_type"], received), strict=True)
        position = (row["topic"], row["part"], row["offset"])
        found[position] = ConsumedRecord(*position, 0, None, None, [(name, text.encode()) for name, text in headers])
    return found


async def _read(
    chosen: Chosen, topics: Collection[str], records: _Places, *, wanted: str, starts: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Replace records by those of the log, and add what is found from `starts` on; return the ends of the log."""
    connection = chosen.settings.kafka.connection
    left = [(TopicPartition(*at[:2]), at[2]) for at in records if at[0] in topics]
    if left:
        async with open_group(connection, chosen.consumer.group, list(topics)) as view:
            bounds = await view.bounds()
            left = [(tp, offset) for tp, offset in left if tp in bounds and bounds[tp].start <= offset]
            while left:
                now = dict(left)
                found = (await view.first_records(now)).values()
                records |= {each[:3]: each for each in found if each is not None and each[:3] in records}
                left = [(tp, offset) for tp, offset in left if now[tp] != offset]
    async with open_reader(
        connection, list(topics), from_beginning=True, starts=starts, unreadable=lambda *_: None
    ) as reader:
        async for record in reader.until_end():
            if _is_of(record, wanted):
                records[record[:3]] = record
        return {TopicPartition(*at): end for at, end in reader.ends.items()}


def _is_of(record: ConsumedRecord, wanted: str) -> bool:
    return _is_id(record, wanted) or has_number(record.key, wanted.encode())


def _is_id(record: ConsumedRecord, wanted: str) -> bool:
    event_id = record.header("ce_id")
    if event_id == wanted or event_id.startswith(f"{wanted}/") or record.key == wanted.encode():
        return True
    digest = wanted.removeprefix(PREFIX)[:HASH_CHARS]
    return wanted.startswith(PREFIX) and digest == record.header("drx_body_sha256")[:HASH_CHARS]


def _spooled(wanted: str) -> _Places:
    """Return waiting records of the spool; acknowledged ones are in Kafka."""
    settings = load_settings().spool
    found: _Places = {}

    def read(entry: Entry) -> None:
        topic, partition, key, value, headers, timestamp_ms = from_entry(entry).record
        record = ConsumedRecord(topic, partition, IN_SPOOL, timestamp_ms, key, value, headers)
        if _is_of(record, wanted):
            found[topic, partition, IN_SPOOL - len(found)] = record

    if settings.enabled and settings.dir.is_dir():
        keys = KeyRing(settings.key_dir or settings.dir / "keys")
        keys.load()
        try:
            segments = list(survey(settings.dir, keys.decrypting, read=read))
        except OSError:
            click.echo(f"{settings.dir}: cannot be read; run as its owner", err=True)
        else:
            if any(each.locked or each.unknown or not each.is_read for each in segments):
                click.echo(f"{settings.dir}: some records cannot be read; see `drx-bridge spool status`", err=True)
    return found


async def _groups(
    database: Database, record: ConsumedRecord, ends: Mapping[TopicPartition, int]
) -> dict[str, dict[str, Any]]:
    """Return the state of a record in each group that reads the partition."""
    if record.offset == IN_SPOOL:
        return {}
    rows = await database.fetch(_GROUPS, *record[:3], *_identity(record))
    end = ends.get(TopicPartition(*record[:2]), sys.maxsize)
    groups = {}
    for row in rows:
        stopped = why_stopped(row["next_offset"], Bounds(0, end))
        # The offsets settled by the group belong to another log.
        is_stopped = stopped and row["settled_at"] is None
        groups[row["grp"]] = {"state": "stopped", "code": stopped} if is_stopped else _state(row, record)
    return groups


def _identity(record: ConsumedRecord) -> tuple[str, str]:
    return stored_text(record.header("ce_source")), stored_text(record.header("ce_id"))


def _state(row: Any, record: ConsumedRecord) -> dict[str, Any]:
    next_offset, received = row["next_offset"] or 0, record.header("drx_received_at")
    if row["parked"] is not None:
        return {"state": "parked", "at": row["parked_at"], "code": row["parked"], "records": row["behind"]}
    if row["skipped_at"] is not None:
        return {"state": "skipped", "at": row["skipped_at"], "code": row["skipped"]}
    if row["settled_at"] is not None:
        return {"state": "applied", "at": row["settled_at"]}
    if record.offset >= next_offset and not row["settled"]:
        return {"state": "waiting", "records": record.offset - next_offset}
    if received and row["pruned_before"] is not None and datetime.fromisoformat(received) < row["pruned_before"]:
        return {"state": "applied", "code": "pruned"}
    return {"state": "skipped", "code": "not_handled"}


async def _document(
    record: ConsumedRecord, groups: Mapping[str, Any], decoder: EventDecoder, *, show_phi: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": record.header("ce_id"),
        "type": record.header("ce_type"),
        "by": f"{record.header('drx_ordinal') or '-'}  slot {record.header('drx_key_slot') or '-'}",
        "received": record.header("drx_received_at") or None,
        "topic": record.topic,
        "partition": record.partition,
        "offset": None if record.offset == IN_SPOOL else record.offset,
        "groups": groups,
    }
    is_unrecognized, value = document["type"] == UNRECOGNIZED_TYPE, None
    if (is_unrecognized or show_phi) and record.value is not None:
        with suppress(DecodeError):
            value = (await decoder.inspect(record)).value
    if is_unrecognized:
        document["unrecognized"] = {name: (value or {}).get(name) for name in ("reason", "detail", "field")}
    return document | {"value": value} if show_phi else document


def _rows(document: Mapping[str, Any]) -> list[tuple[object, ...]]:
    partition = f"{document['topic']}/{document['partition']}"
    state = "spooled" if document["offset"] is None else f"@{document['offset']}"
    why = " ".join(filter(None, document.get("unrecognized", {}).values()))
    rows: list[tuple[object, ...]] = [
        (document["received"], document["type"], document["id"], document["by"]),
        (None, partition, state, why),
    ]
    for group, each in document["groups"].items():
        side = {"parked": "behind", "waiting": "before"}.get(each["state"], "")
        notes = [each.get("code", ""), f"{counted(each['records'], 'record')} {side} it" if side else ""]
        at = instant(each["at"]) if "at" in each else None
        state = WORDS[each["code"]] if each["state"] == "stopped" else each["state"]
        rows.append((at, group, state, " ".join(filter(None, notes))))
    return rows
