"""`drx-consumer parked`: list, release and discard parked records of a consumer.

Deliveries that the ingress parks are in the topic `drx.unrecognized.v1`: see `drx-bridge unrecognized`.
"""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial, wraps
from typing import Any

import click
import orjson
from rich.console import Console
from rich.text import Text

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.errors import ConfigError, DecodeError
from bridge.event import plain
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.runtime.audit import audited
from bridge.runtime.findings import counted
from bridge.runtime.process import FloatRange, Group, combined
from bridge.runtime.screen import TIME, print_json, print_rows
from consumers.api import Consumer
from consumers.commands.installed import Chosen
from consumers.commands.options import _Command, decision_options, json_option, of_consumer, phi_options
from consumers.postgres.pool import Database
from consumers.runtime import operator, parking
from consumers.runtime.operator import By, Decision
from consumers.runtime.parking import LIST_MAX, Filters
from consumers.runtime.retry_policy import UNEXPECTED

# Keys per second; at the minimum, a thousand keys take eleven days.
RATE_MIN, RATE_MAX = 0.001, 10_000.0
# Records named in an audit line, which stays below 16 KiB even if a command affects every parked key.
PLACES_MAX = 100


_filter_options = combined(
    click.option("--topic", help="Only keys of this topic."),
    click.option("--class", "cls", help="Only keys parked for this class of failure."),
    click.option("--code", help="Only keys parked for this reason."),
)


def _of_key(command: _Command) -> _Command:
    """Add the options of commands about one key; the command gets `topic`, `key` and `partition` as one."""

    @of_consumer
    @click.argument("key")
    @click.option("--topic", help="Required if the consumer subscribes to more than one.")
    @click.option(
        "--partition",
        type=click.IntRange(0, 2**31 - 1),
        help="Required if it is not the one that Kafka's default partitioner gives the key.",
    )
    @decision_options(needs_reason=True)
    @json_option
    @wraps(command)
    def of_key(*, chosen: Chosen, key: str, topic: str | None, partition: int | None, **others: Any) -> int:
        which = {"topic": topic_of(chosen.consumer, topic), "key": key, "partition": partition}
        return command(chosen=chosen, which=which, **others)

    return of_key


@click.group(cls=Group)
def parked() -> None:
    """List, release and discard parked records of a consumer; keys, which are prescription ids, are shown."""


@parked.command("list")
@of_consumer
@_filter_options
@click.option(
    "--limit", type=click.IntRange(1, 2**31 - 1), default=LIST_MAX, show_default=True, help="Maximum number of keys."
)
@json_option
def list_keys(*, chosen: Chosen, limit: int, as_json: bool, **only: str | None) -> int:
    """List parked keys, oldest first: reason, attempts, and how many records wait."""

    async def ask() -> tuple[list[dict[str, Any]], datetime | None]:
        group, filters = chosen.consumer.group, Filters(**only)
        async with chosen.open_database("parked list") as database:
            keys = await parking.list_parked(database, group, filters, limit=limit)
            return keys, await operator.opened_at(database, group)

    keys, since = asyncio.run(ask())
    if since is not None:
        resume = f"drx-consumer parked resume {chosen.named} --reason …"
        click.echo(f"the park limit is open since {since:{TIME}}; correct the cause, then `{resume}`", err=True)
    if as_json:
        print_json(*keys)
    elif not keys:
        click.echo("nothing is parked")
    else:
        headings = ("key", "partition", "class", "code", "attempts", "events", "parked_at", "release", "raised")
        print_rows(headings, [[_shown(each)[heading] for heading in headings] for each in keys])
    return 0


def _shown(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a parked key, for people."""
    release = None if key["release_requested_at"] is None else f"requested by {key['release_requested_by']}"
    parked_at = f"{key['parked_at']:{TIME}}"
    return {**key, "partition": f"{key['topic']}/{key['partition']}", "parked_at": parked_at, "release": release}


@parked.command()
@of_consumer
@click.argument("key")
@click.option("--topic", help="Only the records of this topic.")
@phi_options
@json_option
def show(*, chosen: Chosen, key: str, topic: str | None, show_phi: bool, by: By, as_json: bool) -> int:
    """Show the parked records of KEY, in order; their content only with --show-phi.

    Without --topic, those in every topic of the consumer.
    """
    topics = list(chosen.consumer.topics) if topic is None else [topic_of(chosen.consumer, topic)]
    with audited(
        "parked.show", show_phi=True, group=chosen.consumer.group, topic=" ".join(topics), **by._asdict()
    ) as ended:
        documents = asyncio.run(_show(chosen, topics, key, values=show_phi))
        ended["records"] = len(documents)
    if not documents:
        raise ConfigError("no record of that key is parked")
    if as_json:
        print_json(*documents)
        return 0
    console = Console(soft_wrap=True)
    for document in documents:
        position = f"{document['topic']}/{document['partition']}@{document['offset']}"
        why = f"{document['class']} {document['code']}  {document['raised'] or ''}".rstrip()
        console.print(Text(f"{position}  {document['event_type']}  {document['event_id']}  {why}"))
        if show_phi:
            console.print_json(orjson.dumps(document["value"], default=plain, option=orjson.OPT_UTC_Z).decode())
    if any(document["code"] == UNEXPECTED for document in documents):
        click.echo(f"{UNEXPECTED}: the log line worker.handler_bug of that offset has the calls before it", err=True)
    return 0


@parked.command()
@of_consumer
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "everything", is_flag=True, help="All parked keys, or all that match the filters.")
@_filter_options
@click.option("--rate", type=FloatRange(RATE_MIN, RATE_MAX), help="Keys to release per second; default: all at once.")
@decision_options(needs_reason=False)
@json_option
def retry(
    *,
    chosen: Chosen,
    keys: tuple[str, ...],
    topic: str | None,
    cls: str | None,
    code: str | None,
    everything: bool,
    rate: float | None,
    **asked: Any,
) -> int:
    """Release KEYs: a running consumer handles their records again, in order, within seconds."""
    if bool(keys) == everything:
        raise click.UsageError("name keys, or --all")
    filters = Filters(cls, code, None if topic is None else topic_of(chosen.consumer, topic), keys or None)

    async def act(database: Database, group: str, *, by: By) -> list[Decision]:
        decisions = await operator.request_release(database, group, filters, per_second=rate, by=by)
        if missing := set(keys) - {each.key for each in decisions}:
            raise ConfigError(_not_parked(len(missing), len(set(keys)), dry_run=by.dry_run))
        return decisions

    return _decide("retry", act, chosen=chosen, **asked)


@parked.command()
@_of_key
def park(*, which: Mapping[str, Any], **asked: Any) -> int:
    """Park KEY manually: its records wait, in order, until `retry`. Needs a reason."""
    return _decide("park", partial(operator.park, **which), **asked)


@parked.command()
@_of_key
@click.option(
    "--offset", type=click.IntRange(0, 2**63 - 1), required=True, help="Offset of the record, from `parked show`."
)
def skip(*, which: Mapping[str, Any], offset: int, **asked: Any) -> int:
    """Discard one parked record of KEY; later ones stay parked. Needs a reason."""
    return _decide("skip", partial(operator.discard, **which, offset=offset), **asked)


@parked.command("drop-key")
@_of_key
def drop_key(*, which: Mapping[str, Any], **asked: Any) -> int:
    """Discard all parked records of KEY; later records are handled. Needs a reason."""
    return _decide("drop-key", partial(operator.discard, **which), **asked)


@parked.command()
@of_consumer
@decision_options(needs_reason=True)
@json_option
def resume(**asked: Any) -> int:
    """Resume a consumer stopped by its park limit; parked records stay parked. Needs a reason."""
    return _decide("resume", operator.resume, **asked)


def _decide(verb: str, act: Callable[..., Awaitable[list[Decision]]], *, chosen: Chosen, by: By, as_json: bool) -> int:
    """Execute a decision with its audit lines, and print it."""
    group = chosen.consumer.group

    async def run() -> tuple[list[Decision], int]:
        async with chosen.open_database(f"parked {verb}") as database:
            decisions, left = await act(database, group, by=by), list[dict[str, Any]]()
            if verb == "skip":
                only = Filters(topic=decisions[0].topic, keys=[str(decisions[0].key)])
                left = await parking.list_parked(database, group, only)
            return decisions, sum(each["events"] for each in left)

    with audited(f"parked.{verb}", group=group, **by._asdict()) as ended:
        decisions, left = asyncio.run(run())
        places = [_position(each) for each in decisions[:PLACES_MAX] if each.topic is not None]
        ended.update(decisions=len(decisions), places=places)
    would = "would " if by.dry_run else ""
    for each in decisions:
        if as_json:
            print_json({"verb": verb, "dry_run": by.dry_run, **each._asdict()})
        else:
            what = f"group {group}" if each.topic is None else f"{each.key}  {_position(each)}  {each.code}"
            click.echo(f"{would}{verb} {what}")
    if not as_json:
        then = "would be decided" if would else f"decided{_advice(verb, chosen.named, left)}"
        click.echo(f"{len(decisions)} {then}", err=True)
    return 0


def _advice(verb: str, named: str, left: int) -> str:
    """Return the next step; without the key, which must not appear on standard error."""
    if verb == "park":
        return ": a running consumer applies it within a second"
    if verb == "retry":
        return f": a running consumer releases them; see `drx-consumer parked list {named}`"
    retry = f"`drx-consumer parked retry {named} KEY`"
    return f"; {counted(left, 'record')} of the key still parked: {retry}" if left else ""


def _position(decision: Decision) -> str:
    return f"{decision.topic}/{decision.partition}" + ("" if decision.offset is None else f"@{decision.offset}")


def _not_parked(missing: int, named: int, *, dry_run: bool) -> str:
    """Describe how many of the named keys are not parked, and what happened to the others."""
    if missing == named:
        return "that key is not parked" if named == 1 else f"none of these {named} keys is parked"
    are, requested = "is" if missing == 1 else "are", "would be" if dry_run else "is"
    return f"{missing} of these {named} keys {are} not parked; release of the others {requested} requested"


def topic_of(consumer: Consumer, topic: str | None) -> str:
    """Return the topic, or the consumer's only one."""
    topics = consumer.topics
    if topic is None and len(topics) == 1:
        return topics[0]
    if topic is None:
        msg = f"{consumer.group} reads {len(topics)} topics, so give that of the key: --topic {' or '.join(topics)}"
        raise ConfigError(msg)
    if topic not in topics:
        raise ConfigError(f"--topic: one of {', '.join(topics)}")
    return topic


async def _show(chosen: Chosen, topics: Sequence[str], key: str, *, values: bool) -> list[dict[str, Any]]:
    group = chosen.consumer.group
    async with chosen.open_database("parked show") as database:
        rows = [row for each in topics for row in await parking.show(database, group, each, key, values=values)]
    if not values:
        return [await _document(row, None) for row in rows]
    async with open_decoder(chosen.settings.registry) as decoder:
        return [await _document(row, decoder) for row in rows]


async def _document(row: dict[str, Any], decoder: EventDecoder | None) -> dict[str, Any]:
    """Return a parked record for people and scripts, with its content if there is a decoder."""
    raw_key, value, headers = (row.pop(name) for name in ("raw_key", "value", "headers"))
    if decoder is None:
        return row
    named = [(name, b64decode(content)) for name, content in orjson.loads(headers)]
    row["headers"] = {name: content.decode("utf-8", "replace") for name, content in named}
    row |= {"record": "", "value": None}
    if value is not None:
        position = (row["topic"], row["partition"], row["offset"], row["timestamp_ms"])
        try:
            decoded = await decoder.inspect(ConsumedRecord(*position, raw_key, value, named))
        except DecodeError as exc:
            row["error"] = exc.code
        else:
            row |= {"record": decoded.record, "value": decoded.value}
    return row
