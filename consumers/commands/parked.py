"""`drx-consumer parked`: list, release and discard parked records of a consumer."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack

import click
import orjson
from rich.console import Console
from rich.text import Text

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.errors import ConfigError, DecodeError
from bridge.event import plain
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.audit import audit_options, audited, places
from bridge.runtime.process import FloatRange, Group
from consumers.api import Consumer
from consumers.commands.installed import Chosen, choose
from consumers.commands.options import decision_options, json_option, name_argument, require_reason
from consumers.commands.screen import TIME, print_table
from consumers.postgres.pool import Database
from consumers.runtime import operator
from consumers.runtime.failure import UNEXPECTED
from consumers.runtime.operator import Decision, opened_at
from consumers.runtime.parking import LIST_MAX, Filters, ParkedKey, WaitingEvent, list_parked
from consumers.runtime.parking import show as records_of

Command = TypeVar("Command", bound=Callable[..., Any])

# Keys per second; a thousand keys at the slowest take eleven days.
RATE_MIN, RATE_MAX = 0.001, 10_000.0


class _Asked(TypedDict):
    """Options of every verb that changes something."""

    name: str
    schema: str | None
    actor: str
    reason: str
    dry_run: bool
    as_json: bool


class _OfKey(_Asked):
    """What every verb takes that decides about one key."""

    key: str
    topic: str | None
    partition: int | None


class _Only(TypedDict):
    """Which parked keys; None: any."""

    cls: str | None
    code: str | None
    topic: str | None


class _Trace(TypedDict):
    """Audit fields of the decision."""

    actor: str
    reason: str
    dry_run: bool


_Act = Callable[[Database, Consumer, _Trace], Awaitable[list[Decision]]]


def _filter_options(command: Command) -> Command:
    command = click.option("--code", help="Only keys parked for this reason.")(command)
    command = click.option("--class", "cls", help="Only keys parked for this class of failure.")(command)
    return click.option("--topic", help="Only keys of this topic.")(command)


def _topic_option(command: Command) -> Command:
    return click.option("--topic", help="Required if the consumer subscribes to more than one.")(command)


def _of_consumer(command: Command) -> Command:
    return name_argument(decision_options(json_option(command)))


def _of_key(command: Command) -> Command:
    text = "Required if it is not the one that Kafka's default partitioner gives the key."
    command = click.option("--partition", type=click.IntRange(0, 2**31 - 1), help=text)(command)
    return _of_consumer(click.argument("key")(_topic_option(command)))


@click.group(cls=Group)
def parked() -> None:
    """List, release and discard what a consumer has parked; keys are prescription ids, and are shown."""


@parked.command("list")
@name_argument
@_filter_options
@click.option(
    "--limit", type=click.IntRange(1, 2**31 - 1), default=LIST_MAX, show_default=True, help="Maximum number of keys."
)
@json_option
def list_keys(*, name: str, schema: str | None, limit: int, as_json: bool, **only: Unpack[_Only]) -> int:
    """List parked keys, oldest first: reason, attempts, and how many records wait."""
    filters = Filters(**only)
    chosen = choose(name, schema=schema)

    async def ask() -> tuple[list[ParkedKey], datetime | None]:
        group = chosen.consumer.group
        async with chosen.open_database("parked list") as database:
            return await list_parked(database, group, filters, limit=limit), await opened_at(database, group)

    keys, since = asyncio.run(ask())
    if since is not None:
        resume = f"drx-consumer parked resume {chosen.named} --reason …"
        click.echo(f"the park limit is open since {since:{TIME}}; mend the cause, then `{resume}`", err=True)
    if as_json:
        _lines([_document(each) for each in keys])
        return 0
    if not keys:
        click.echo("nothing is parked")
        return 0
    headings = ("key", "partition", "class", "code", "attempts", "events", "parked_at", "release", "raised")
    print_table(headings, (_row(each) for each in keys))
    return 0


def _row(key: ParkedKey) -> tuple[object, ...]:
    release = None if key.release_requested_at is None else f"asked for by {key.release_requested_by}"
    parked_at = f"{key.parked_at:{TIME}}"
    place = f"{key.topic}/{key.partition}"
    return key.key, place, key.cls, key.code, key.attempts, key.events, parked_at, release, key.raised


@parked.command()
@name_argument
@click.argument("key")
@click.option("--topic", help="Only the records of this topic.")
@click.option("--show-phi", is_flag=True, help="Show health information: the content of the records.")
@audit_options
@json_option
def show(
    *,
    name: str,
    schema: str | None,
    key: str,
    topic: str | None,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
) -> int:
    """Show the parked records of KEY, in order; their content only with --show-phi.

    Without --topic, those in every topic of the consumer.
    """
    chosen = choose(name, schema=schema)
    topics = list(chosen.consumer.topics) if topic is None else [topic_of(chosen.consumer, topic)]
    what = {"group": chosen.consumer.group, "topic": " ".join(topics)}
    with audited("parked.show", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, **what) as ended:
        documents = asyncio.run(_show(chosen, topics, key, values=show_phi))
        ended["records"] = len(documents)
    if not documents:
        msg = "no record of that key is parked"
        raise ConfigError(msg)
    if as_json:
        _lines(documents)
        return 0
    console = Console(soft_wrap=True)
    for document in documents:
        place = f"{document['topic']}/{document['partition']}@{document['offset']}"
        why = f"{document['class']} {document['code']}  {document['raised'] or ''}".rstrip()
        console.print(Text(f"{place}  {document['event_type']}  {document['event_id']}  {why}"))
        if show_phi:
            console.print_json(orjson.dumps(document["value"], default=plain, option=orjson.OPT_UTC_Z).decode())
    if any(document["code"] == UNEXPECTED for document in documents):
        click.echo(f"{UNEXPECTED}: the log line worker.handler_bug of that offset has the calls before it", err=True)
    return 0


@parked.command()
@name_argument
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "everything", is_flag=True, help="All parked keys, or all that match the filters.")
@_filter_options
@click.option("--rate", type=FloatRange(RATE_MIN, RATE_MAX), help="Keys to release per second; default: all at once.")
@decision_options
@json_option
def retry(
    *,
    keys: tuple[str, ...],
    topic: str | None,
    cls: str | None,
    code: str | None,
    everything: bool,
    rate: float | None,
    **asked: Unpack[_Asked],
) -> int:
    """Release KEYs: a running consumer handles their records again, in order, within seconds."""
    if bool(keys) == everything:
        msg = "name keys, or --all"
        raise click.UsageError(msg)

    async def act(database: Database, consumer: Consumer, trace: _Trace) -> list[Decision]:
        only = None if topic is None else topic_of(consumer, topic)
        filters = Filters(cls, code, only, keys or None)
        decisions = await operator.request_release(database, consumer.group, filters, per_second=rate, **trace)
        if missing := set(keys) - {each.key for each in decisions}:
            raise ConfigError(_not_parked(len(missing), len(set(keys)), dry_run=trace["dry_run"]))
        return decisions

    return _decide("retry", act, **asked)


@parked.command()
@_of_key
def park(**asked: Unpack[_OfKey]) -> int:
    """Park KEY by hand: its records wait, in order, until `retry`. Needs a reason."""
    return _decide_key("park", operator.park, **asked)


@parked.command()
@_of_key
@click.option(
    "--offset", type=click.IntRange(0, 2**63 - 1), required=True, help="Offset of the record, from `parked show`."
)
def skip(*, offset: int, **asked: Unpack[_OfKey]) -> int:
    """Discard one parked record of KEY; those behind it stay parked. Needs a reason."""
    return _decide_key("skip", partial(operator.give_up, offset=offset), **asked)


@parked.command("drop-key")
@_of_key
def drop_key(**asked: Unpack[_OfKey]) -> int:
    """Discard all parked records of KEY; later records are handled. Needs a reason."""
    return _decide_key("drop-key", operator.give_up, **asked)


@parked.command()
@_of_consumer
def resume(**asked: Unpack[_Asked]) -> int:
    """Resume a consumer that its park limit has stopped; what is parked stays parked. Needs a reason."""
    require_reason(asked["reason"])
    return _decide(
        "resume", lambda database, consumer, trace: operator.resume(database, consumer.group, **trace), **asked
    )


def _decide_key(
    verb: str,
    act: Callable[..., Awaitable[list[Decision]]],
    *,
    key: str,
    topic: str | None,
    partition: int | None,
    **asked: Unpack[_Asked],
) -> int:
    require_reason(asked["reason"])
    return _decide(
        verb,
        lambda database, consumer, trace: act(
            database, consumer.group, topic_of(consumer, topic), key, partition=partition, **trace
        ),
        **asked,
    )


def _decide(verb: str, act: _Act, **asked: Unpack[_Asked]) -> int:
    """Execute a decision with its audit lines, and print it."""
    chosen = choose(asked["name"], schema=asked["schema"])
    dry_run = asked["dry_run"]
    trace = _Trace(actor=asked["actor"], reason=asked["reason"], dry_run=dry_run)

    async def run() -> list[Decision]:
        async with chosen.open_database(f"parked {verb}") as database:
            return await act(database, chosen.consumer, trace)

    with audited(f"parked.{verb}", group=chosen.consumer.group, **trace) as ended:
        decisions = asyncio.run(run())
        ended.update(decisions=len(decisions), places=places(decisions))
    for each in decisions:
        document = {"verb": verb, "dry_run": dry_run, **each._asdict()}
        line = f"{'would ' if dry_run else ''}{_line(verb, chosen.consumer.group, each)}"
        click.echo(orjson.dumps(document) if asked["as_json"] else line)
    if not asked["as_json"]:
        click.echo(f"{len(decisions)} {'would be decided' if dry_run else 'decided'}", err=True)
    return 0


def _not_parked(missing: int, named: int, *, dry_run: bool) -> str:
    """Describe how many of the named keys are not parked, and what happened to the others."""
    if missing == named:
        return "that key is not parked" if named == 1 else f"none of these {named} keys is parked"
    are, requested = "is" if missing == 1 else "are", "would be" if dry_run else "is"
    return f"{missing} of these {named} keys {are} not parked; release of the others {requested} requested"


def _line(verb: str, group: str, decision: Decision) -> str:
    if decision.topic is None:
        return f"{verb} group {group}"
    place = f"{decision.topic}/{decision.partition}" + ("" if decision.offset is None else f"@{decision.offset}")
    return f"{verb} {decision.key}  {place}  {decision.code}"


def topic_of(consumer: Consumer, topic: str | None) -> str:
    """Return the topic, or the consumer's only one.

    Raises:
        ConfigError: There are several, or it is none of the consumer's.
    """
    topics = consumer.topics
    if topic is None and len(topics) == 1:
        return topics[0]
    if topic is None:
        msg = f"{consumer.group} reads {len(topics)} topics, so name that of the key: --topic {' or '.join(topics)}"
        raise ConfigError(msg)
    if topic not in topics:
        msg = f"--topic: one of {', '.join(topics)}"
        raise ConfigError(msg)
    return topic


async def _show(chosen: Chosen, topics: Sequence[str], key: str, *, values: bool) -> list[dict[str, Any]]:
    registry = chosen.settings.registry
    async with chosen.open_database("parked show") as database:
        events = [
            event
            for topic in topics
            for event in await records_of(database, chosen.consumer.group, topic, key, values=values)
        ]
    if not values:
        return [_document(each) for each in events]
    async with open_decoder(registry) as decoder:
        return [_document(each) | await _content(each, decoder) for each in events]


def _document(item: ParkedKey | WaitingEvent) -> dict[str, Any]:
    """Name the columns as people and scripts do; the content of the records is added by `_content`."""
    document = item._asdict()
    document["class"] = document.pop("cls")
    for name in ("raw_key", "value", "headers"):
        document.pop(name, None)
    return document


async def _content(event: WaitingEvent, decoder: EventDecoder) -> dict[str, Any]:
    headers = [(name, b64decode(content)) for name, content in orjson.loads(event.headers or "[]")]
    place = (event.topic, event.partition, event.offset, event.timestamp_ms)
    shown: dict[str, Any] = {
        "headers": {name: content.decode("utf-8", "replace") for name, content in headers},
        "record": "",
        "value": None,
    }
    if event.value is not None:
        try:
            decoded = await decoder.inspect(ConsumedRecord(*place, event.raw_key, event.value, headers))
        except DecodeError as exc:
            return shown | {"error": exc.code}
        shown |= {"record": decoded.record, "value": decoded.value}
    return shown


def _lines(documents: list[dict[str, Any]]) -> None:
    for document in documents:
        click.echo(orjson.dumps(document, default=plain, option=orjson.OPT_UTC_Z))
