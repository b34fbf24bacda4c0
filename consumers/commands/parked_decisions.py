"""`drx-consumer parked retry|skip|drop-key`: what a person decides about parked keys, kept with who and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import click
import orjson

from bridge.errors import ConfigError
from bridge.kafka import operator
from bridge.kafka.operator import Decision
from bridge.kafka.parked import Filters
from bridge.postgres.pool import Database
from consumers.commands.database import open_for_operator
from consumers.commands.installed import Chosen, choose
from consumers.commands.parked_options import (
    decision_options,
    filters_of,
    json_option,
    name_argument,
    topic_of,
    topic_option,
    where_option,
)

Order = Callable[[Database], Awaitable[list[Decision]]]


@click.command()
@name_argument
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@topic_option
@click.option("--all", "everything", is_flag=True, help="Every parked key, or those that --where describes.")
@where_option
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Keys per second; without it all at once.")
@decision_options
@json_option
def retry(
    *,
    name: str,
    schema: str | None,
    keys: tuple[str, ...],
    topic: str | None,
    everything: bool,
    where: tuple[str, ...],
    rate: float | None,
    actor: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Ask the consumer to handle the records of KEYs again, in order; a running process does so within seconds."""
    if bool(keys) == everything or (where and not everything):
        msg = "name keys, or --all with or without --where"
        raise click.UsageError(msg)
    filters: Filters = filters_of(where)
    chosen = choose(name, schema=schema)
    wanted = [(topic_of(chosen, topic), key) for key in keys] if keys else None

    async def order(database: Database) -> list[Decision]:
        decisions = await operator.retry(
            database,
            chosen.consumer.group,
            wanted,
            filters=filters,
            per_second=rate,
            actor=actor,
            reason=reason,
            dry_run=dry_run,
        )
        if wanted is not None and len(decisions) < len(set(wanted)):
            msg = f"{len(set(wanted)) - len(decisions)} of these keys are not parked; the others are asked for"
            raise ConfigError(msg)
        return decisions

    return _decide(chosen, "retry", order, dry_run=dry_run, as_json=as_json)


@click.command()
@name_argument
@click.argument("key")
@topic_option
@click.option("--offset", type=click.IntRange(0), required=True, help="Of the record, as `parked show` says.")
@decision_options
@json_option
def skip(
    *,
    name: str,
    schema: str | None,
    key: str,
    topic: str | None,
    offset: int,
    actor: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Give up one record of KEY: it is never handled, and those behind it stay. Needs a reason."""
    _demand(reason)
    chosen = choose(name, schema=schema)

    async def order(database: Database) -> list[Decision]:
        where = (chosen.consumer.group, topic_of(chosen, topic), key)
        return [await operator.skip(database, *where, offset=offset, actor=actor, reason=reason, dry_run=dry_run)]

    return _decide(chosen, "skip", order, dry_run=dry_run, as_json=as_json)


@click.command("drop-key")
@name_argument
@click.argument("key")
@topic_option
@decision_options
@json_option
def drop_key(
    *,
    name: str,
    schema: str | None,
    key: str,
    topic: str | None,
    actor: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Give up all records that wait under KEY; later ones are handled. Needs a reason."""
    _demand(reason)
    chosen = choose(name, schema=schema)

    async def order(database: Database) -> list[Decision]:
        where = (chosen.consumer.group, topic_of(chosen, topic), key)
        return await operator.drop_key(database, *where, actor=actor, reason=reason, dry_run=dry_run)

    return _decide(chosen, "drop-key", order, dry_run=dry_run, as_json=as_json)


def _demand(reason: str) -> None:
    if not reason.strip():
        msg = "--reason is needed: it is kept with the decision"
        raise click.UsageError(msg)


def _decide(chosen: Chosen, verb: str, order: Order, *, dry_run: bool, as_json: bool) -> int:
    async def run() -> list[Decision]:
        async with open_for_operator(chosen, f"parked {verb}") as database:
            return await order(database)

    decisions = asyncio.run(run())
    for each in decisions:
        document = {"verb": verb, "dry_run": dry_run, **each._asdict()}
        place = f"{each.topic}/{each.partition}" + ("" if each.offset is None else f"@{each.offset}")
        click.echo(orjson.dumps(document) if as_json else f"{verb} {each.key}  {place}  {each.code}")
    if not as_json:
        click.echo(f"{len(decisions)} {'would be decided' if dry_run else 'decided'}", err=True)
    return 0
