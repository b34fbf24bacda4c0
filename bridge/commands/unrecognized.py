"""`drx-bridge unrecognized`: list and show parked deliveries; `replay` is in `unrecognized_replay`.

The ingress *parks* a verified delivery that it cannot map to events: it writes the whole delivery to the topic
`drx.unrecognized.v1`. Records that a consumer parks are in PostgreSQL instead: see `drx-consumer parked`.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from typing import Any, NamedTuple

import click
import orjson

from bridge.avro.event_decoder import open_decoder
from bridge.commands.tail import PipeConsole, decoded, json_line, masker_of, passed_over, people_lines
from bridge.contract.events import plain_type
from bridge.errors import DecodeError
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.reader import TopicReader, Unreadable, open_reader
from bridge.kafka.record import PART_SHA256
from bridge.kafka.routing import UNRECOGNIZED_TOPIC, RoutingTable
from bridge.known.derived_ids import PREFIX
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.process import Group, bootstrap_option, with_brokers
from bridge.runtime.screen import print_json, print_rows
from bridge.settings import Settings, load_settings

# Members of a body in which vendors name the type of an update.
TYPE_MEMBERS = ("type", "event_type", "eventType", "EventType", "event")
EXAMPLES_MAX = 3

Filter = Callable[[ConsumedRecord], bool]
# A source with a delivery id or body hash. An event that shares a mark with a parked delivery came from it; the word
# `whole` after a hash excludes elements of a batch.
Mark = tuple[str, str]


class ParkedGroup(NamedTuple):
    """The properties by which parked deliveries are grouped."""

    source: str
    reason: str
    detail: str
    field: str
    type: str
    day: str


@click.group(
    cls=Group,
    modules={
        "replay": ("bridge.commands.unrecognized_replay:replay", "Post parked deliveries to the running ingress again.")
    },
)
def unrecognized() -> None:
    """List, show or replay parked deliveries."""


@unrecognized.command("list")
@click.option("--source", help="Only deliveries of this source.")
@click.option("--left", is_flag=True, help="Only deliveries that have not become events since.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per group.")
@bootstrap_option
def list_(*, source: str | None, left: bool, as_json: bool, bootstrap_servers: str | None) -> int:
    """Count parked deliveries by source, reason, detail, field, type and day (UTC), with ids of some.

    The type is the one that the body names: `other` if it does not look like a type, `unknown` if there is none.
    `count` includes deliveries that were replayed or sent again; `events` is how many have become events since. To find
    these, the command reads the event topics from the time of the first parked delivery.
    """
    counts, now_events = Counter[ParkedGroup](), Counter[ParkedGroup]()
    examples = dict[ParkedGroup, list[str]]()

    async def count() -> None:
        settings = with_brokers(load_settings(), bootstrap_servers)
        found, since_ms = list[tuple[ParkedGroup, str, set[Mark]]](), 0
        async for record, value in parked(settings, lambda record: source in {None, record.header("ce_source")}):
            since_ms = since_ms or record.timestamp_ms
            found.append((_group(value), value["webhook_id"], _marks(record)))
        known = await _marks_of_events(settings, set[Mark]().union(*(marks for *_, marks in found)), since_ms)
        for group, delivery_id, marks in found:
            is_event = not known.isdisjoint(marks)
            if is_event and left:
                continue
            counts[group] += 1
            now_events[group] += is_event
            shown = examples.setdefault(group, [])
            if len(shown) < EXAMPLES_MAX and delivery_id not in shown:
                shown.append(delivery_id)

    asyncio.run(count())
    lines = [
        each._asdict() | {"count": number, "events": now_events[each], "examples": examples[each]}
        for each, number in sorted(counts.items())
    ]
    if as_json:
        print_json(*lines)
    else:
        headings = (*ParkedGroup._fields, "count", "events", "examples")
        print_rows(headings, [tuple({**each, "examples": " ".join(each["examples"])}.values()) for each in lines])
    return 0


def _marks(record: ConsumedRecord) -> set[Mark]:
    """Return the marks of a parked delivery: its body hash, and its id in case it was sent again with another body."""
    source, body = record.header("ce_source"), record.header("drx_body_sha256")
    if record.header("drx_reason") == "id_conflict":
        return {(source, f"{body} whole")}  # other elements of its batch became events at once
    return {(source, body), (source, record.header("ce_id"))}


def _event_marks(record: ConsumedRecord) -> set[Mark]:
    """Return the marks of all deliveries from which an event may have come."""
    source, event_id, body = (record.header(name) for name in ("ce_source", "ce_id", "drx_body_sha256"))
    # The id of an element begins with that of its delivery and a slash; an id of a delivery may have slashes, too.
    ends = [each.start() for each in re.finditer("/", event_id)]
    marks = {(source, event_id[:end]) for end in (*ends, None)}
    if not event_id.startswith(PREFIX):  # without an id, deliveries with equal bodies may be different events
        marks |= {(source, body)} if record.header(PART_SHA256) else {(source, body), (source, f"{body} whole")}
    return marks


async def _marks_of_events(settings: Settings, wanted: set[Mark], since_ms: int) -> set[Mark]:
    """Return which of the `wanted` marks belong to events in Kafka; `since_ms` is a timestamp of Kafka."""
    if not wanted:
        return set()
    known = set[Mark]()
    async with open_events(settings, since_ms=since_ms) as reader:
        async for record in reader.until_end():
            known |= _event_marks(record) & wanted
    return known


@asynccontextmanager
async def open_events(settings: Settings, *, since_ms: int = 0) -> AsyncIterator[TopicReader]:
    """Open a reader of all topics of events."""
    topics = [each for each in RoutingTable(settings.kafka.routes).topics if each != UNRECOGNIZED_TOPIC]
    connection = settings.kafka.connection
    opening = open_reader(connection, topics, from_beginning=True, since_ms=since_ms, unreadable=passed_over)
    async with opening as reader:
        yield reader


@unrecognized.command()
@click.argument("delivery_id", metavar="ID")
@click.option("--show-phi", is_flag=True, help="Show the body instead of masking it.")
@audit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line per record.")
@bootstrap_option
def show(
    *, delivery_id: str, show_phi: bool, actor: str, reason: str, as_json: bool, bootstrap_servers: str | None
) -> int:
    """Show every record of the parked delivery ID; exit 1 if there is none.

    The body is masked unless --show-phi is given, which writes an audit line.
    """
    masker = masker_of(as_json=as_json, show_phi=show_phi)
    printed = json_line if as_json else people_lines(PipeConsole(soft_wrap=True), show_bodies=show_phi)

    async def find() -> int:
        found, settings = 0, with_brokers(load_settings(), bootstrap_servers)
        async with open_decoder(settings.registry) as decoder:
            async for record in records(settings, lambda record: record.header("ce_id") == delivery_id):
                printed(await decoded(record, decoder=decoder, masker=masker))
                found += 1
        return found

    with audited("unrecognized.show", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, id=delivery_id):
        found = asyncio.run(find())
    if not found:
        click.echo(f"no parked delivery has this id: {delivery_id}", err=True)
    return int(not found)


async def records(
    settings: Settings, wanted: Filter, *, unreadable: Unreadable = passed_over
) -> AsyncIterator[ConsumedRecord]:
    """Yield the records of parked deliveries, in the order in which they were parked."""
    connection = settings.kafka.connection
    async with open_reader(connection, [UNRECOGNIZED_TOPIC], from_beginning=True, unreadable=unreadable) as reader:
        async for record in reader.by_time():
            if wanted(record):
                yield record


def _not_decoded(record: ConsumedRecord, code: str) -> None:
    click.echo(f"{record.topic}/{record.partition}@{record.offset}: cannot be decoded: {code}", err=True)


async def parked(
    settings: Settings,
    wanted: Filter,
    *,
    unreadable: Unreadable = passed_over,
    undecodable: Callable[[ConsumedRecord, str], object] = _not_decoded,
) -> AsyncIterator[tuple[ConsumedRecord, dict[str, Any]]]:
    """Yield the records of parked deliveries with their values, in the order in which they were parked."""
    async with open_decoder(settings.registry) as decoder:
        async for record in records(settings, wanted, unreadable=unreadable):
            try:
                yield record, dict((await decoder.inspect(record)).value)
            except DecodeError as exc:
                undecodable(record, exc.code)


def _group(value: dict[str, Any]) -> ParkedGroup:
    day = value["received_at"].astimezone(UTC).date().isoformat()
    return ParkedGroup(value["source"], value["reason"], value["detail"], value["field"], _type_of(value["body"]), day)


def _type_of(body: bytes) -> str:
    with suppress(ValueError):
        document = orjson.loads(body)
        words = (document.get(name) for name in TYPE_MEMBERS) if isinstance(document, dict) else ()
        for word in words:
            if isinstance(word, str):
                return plain_type(word)
    return "unknown"
