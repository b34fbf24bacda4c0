"""`drx-consumer parked`: see what a consumer has set aside, and take it out of the process to look at."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64decode, b64encode
from datetime import datetime
from decimal import Decimal
from typing import Any

import click
import orjson
from rich.console import Console

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.errors import DecodeError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.audit import audit_options, audited
from consumers.commands.database import open_for_operator
from consumers.commands.installed import Chosen, choose
from consumers.commands.parked_decisions import drop_key, park, resume, retry, skip
from consumers.commands.parked_options import (
    filters_of,
    json_option,
    name_argument,
    topic_of,
    topic_option,
    where_option,
)
from consumers.commands.screen import print_table
from consumers.runtime.operator import export, opened_at
from consumers.runtime.parking import LIST_MAX, ParkedKey, WaitingEvent, list_parked
from consumers.runtime.parking import show as waiting

_TIME = "%Y-%m-%d %H:%M:%SZ"


@click.group()
def parked() -> None:
    """See and settle what a consumer has set aside; keys are prescription ids, shown because one needs them."""


parked.add_command(park)
parked.add_command(retry)
parked.add_command(skip)
parked.add_command(drop_key)
parked.add_command(resume)


@parked.command("list")
@name_argument
@where_option
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), default=LIST_MAX, show_default=True, help="Keys at most.")
@json_option
def list_keys(*, name: str, schema: str | None, where: tuple[str, ...], limit: int, as_json: bool) -> int:
    """List parked keys, the oldest first: why, how often tried, and how much waits."""
    filters = filters_of(where)
    chosen = choose(name, schema=schema)

    async def ask() -> tuple[list[ParkedKey], datetime | None]:
        group = chosen.consumer.group
        async with open_for_operator(chosen, "parked list") as database:
            return await list_parked(database, group, filters, limit=limit), await opened_at(database, group)

    keys, since = asyncio.run(ask())
    if since is not None:
        click.echo(f"the park breaker is open since {since:{_TIME}}; mend, then `drx-consumer parked resume`", err=True)
    if as_json:
        _lines([_document(each) for each in keys])
        return 0
    if not keys:
        click.echo("nothing is parked")
        return 0
    headings = ("key", "partition", "class", "code", "tries", "events", "since", "release")
    print_table(headings, (_row(each) for each in keys))
    return 0


def _row(key: ParkedKey) -> tuple[object, ...]:
    release = None if key.release_requested_at is None else f"asked for by {key.release_requested_by}"
    since = f"{key.parked_at:{_TIME}}"
    return key.key, f"{key.topic}/{key.partition}", key.cls, key.code, key.attempts, key.events, since, release


@parked.command()
@name_argument
@click.argument("key")
@topic_option
@click.option("--show-phi", is_flag=True, help="Show health information: what the records hold.")
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
    """Show the records that wait under KEY, in order; what they hold only with --show-phi."""
    chosen = choose(name, schema=schema)
    topic = topic_of(chosen.consumer, topic)
    what = {"group": chosen.consumer.group, "topic": topic}
    with audited("parked.show", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, **what) as ended:
        documents = asyncio.run(_show(chosen, topic, key, values=show_phi))
        ended["records"] = len(documents)
    if as_json:
        _lines(documents)
        return 0
    console = Console(soft_wrap=True)
    for document in documents:
        place = f"{document['topic']}/{document['partition']}@{document['offset']}"
        why = f"{document['class']} {document['code']}"
        console.print(f"{place}  {document['event_type']}  {document['event_id']}  {why}", highlight=False)
        if show_phi:
            console.print_json(orjson.dumps(document["value"], default=_plain, option=orjson.OPT_UTC_Z).decode())
    if not documents:
        console.print("that key is not parked")
    return 0


@parked.command("export")
@name_argument
@click.option("--show-phi", is_flag=True, help="With what the records hold, in base64.")
@audit_options
@click.option("--json", is_flag=True, expose_value=False, help="As always.")
def export_all(*, name: str, schema: str | None, show_phi: bool, actor: str, reason: str) -> int:
    """Write every decision and every parked record as JSON lines; `init --decisions` takes the decisions over."""
    chosen = choose(name, schema=schema)

    group = chosen.consumer.group

    async def write() -> int:
        rows = 0
        async with open_for_operator(chosen, "parked export") as database:
            async for row in export(database, group, values=show_phi):
                sys.stdout.buffer.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                rows += 1
        return rows

    with audited("parked.export", actor=actor, reason=reason, group=group, show_phi=show_phi) as ended:
        ended["rows"] = asyncio.run(write())
        sys.stdout.flush()
    return 0


async def _show(chosen: Chosen, topic: str, key: str, *, values: bool) -> list[dict[str, Any]]:
    registry = chosen.settings.registry
    async with open_for_operator(chosen, "parked show") as database:
        events = await waiting(database, chosen.consumer.group, topic, key, values=values)
    if not values:
        return [_document(each) for each in events]
    async with open_decoder(registry, cache_dir=registry.cache_dir) as decoder:
        return [_document(each) | await _content(each, decoder) for each in events]


def _document(item: ParkedKey | WaitingEvent) -> dict[str, Any]:
    """Name the columns as people and scripts do; what the records hold is added by `_content`."""
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
        click.echo(orjson.dumps(document, default=_plain, option=orjson.OPT_UTC_Z))


def _plain(value: object) -> str:
    """Write what JSON has no form for as `drx-bridge tail` does."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    raise TypeError
