"""`drx-consumer parked park|retry|skip|drop-key|resume`: what a person decides about parked keys, and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypedDict, TypeVar, Unpack

import click
import orjson

from bridge.errors import ConfigError
from bridge.runtime.audit import audited, places
from consumers.api import Consumer
from consumers.commands.database import open_for_operator
from consumers.commands.installed import Chosen, choose
from consumers.commands.parked_options import (
    decision_options,
    filters_of,
    json_option,
    name_argument,
    partition_option,
    rate_option,
    topic_of,
    topic_option,
    where_option,
)
from consumers.postgres.pool import Database
from consumers.runtime import operator
from consumers.runtime.operator import Decision
from consumers.runtime.parking import Filters

Command = TypeVar("Command", bound=Callable[..., Any])
Order = Callable[[Database], Awaitable[list[Decision]]]


class _Said(TypedDict):
    """What every verb takes that needs a reason."""

    name: str
    schema: str | None
    actor: str
    reason: str
    dry_run: bool
    as_json: bool


class _Trace(TypedDict):
    """What of it goes along with the decision."""

    actor: str
    reason: str
    dry_run: bool


_Act = Callable[[Database, Consumer, _Trace], Awaitable[list[Decision]]]


def _of_consumer(command: Command) -> Command:
    return name_argument(decision_options(json_option(command)))


def _of_key(command: Command) -> Command:
    return _of_consumer(click.argument("key")(topic_option(partition_option(command))))


@click.command()
@name_argument
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@topic_option
@click.option("--all", "everything", is_flag=True, help="Every parked key, or those that --where describes.")
@where_option
@rate_option
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
    wanted = [(topic_of(chosen.consumer, topic), key) for key in keys] if keys else None

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
        missing = set(wanted or ()) - {(each.topic, each.key) for each in decisions}
        if missing:
            asked = "would be" if dry_run else "are"
            msg = f"{len(missing)} of these keys are not parked; the others {asked} asked for"
            raise ConfigError(msg)
        return decisions

    return _decide(chosen, "retry", order, _Trace(actor=actor, reason=reason, dry_run=dry_run), as_json=as_json)


@click.command()
@_of_key
def park(*, key: str, topic: str | None, partition: int | None, **said: Unpack[_Said]) -> int:
    """Set KEY aside: its records wait in order, and none is handled before `retry`. Needs a reason."""

    async def act(database: Database, consumer: Consumer, trace: _Trace) -> list[Decision]:
        where = (consumer.group, topic_of(consumer, topic), key)
        return [await operator.park(database, *where, partition=partition, **trace)]

    return _reasoned("park", act, **said)


@click.command()
@_of_key
@click.option(
    "--offset", type=click.IntRange(0, 2**63 - 1), required=True, help="Of the record, as `parked show` says."
)
def skip(*, key: str, topic: str | None, partition: int | None, offset: int, **said: Unpack[_Said]) -> int:
    """Give up one record of KEY: it is never handled, and those behind it stay. Needs a reason."""

    async def act(database: Database, consumer: Consumer, trace: _Trace) -> list[Decision]:
        where = (consumer.group, topic_of(consumer, topic), key)
        return [await operator.skip(database, *where, offset=offset, partition=partition, **trace)]

    return _reasoned("skip", act, **said)


@click.command("drop-key")
@_of_key
def drop_key(*, key: str, topic: str | None, partition: int | None, **said: Unpack[_Said]) -> int:
    """Give up all records that wait under KEY; later ones are handled. Needs a reason."""

    async def act(database: Database, consumer: Consumer, trace: _Trace) -> list[Decision]:
        where = (consumer.group, topic_of(consumer, topic), key)
        return await operator.drop_key(database, *where, partition=partition, **trace)

    return _reasoned("drop-key", act, **said)


@click.command()
@_of_consumer
def resume(**said: Unpack[_Said]) -> int:
    """Let a consumer go on whose park breaker is open; what is parked stays so, and counts no more. Needs a reason."""

    async def act(database: Database, consumer: Consumer, trace: _Trace) -> list[Decision]:
        return await operator.resume(database, consumer.group, **trace)

    return _reasoned("resume", act, **said)


def _reasoned(verb: str, act: _Act, **said: Unpack[_Said]) -> int:
    if not said["reason"].strip():
        msg = "--reason is needed: it is kept with the decision"
        raise click.UsageError(msg)
    chosen = choose(said["name"], schema=said["schema"])
    trace = _Trace(actor=said["actor"], reason=said["reason"], dry_run=said["dry_run"])

    async def order(database: Database) -> list[Decision]:
        return await act(database, chosen.consumer, trace)

    return _decide(chosen, verb, order, trace, as_json=said["as_json"])


def _decide(chosen: Chosen, verb: str, order: Order, trace: _Trace, *, as_json: bool) -> int:
    dry_run = trace["dry_run"]

    async def run() -> list[Decision]:
        async with open_for_operator(chosen, f"parked {verb}") as database:
            return await order(database)

    with audited(f"parked.{verb}", group=chosen.consumer.group, **trace) as ended:
        decisions = asyncio.run(run())
        ended.update(decisions=len(decisions), places=places(decisions))
    for each in decisions:
        document = {"verb": verb, "dry_run": dry_run, **each._asdict()}
        click.echo(orjson.dumps(document) if as_json else f"{'would ' if dry_run else ''}{_line(verb, each)}")
    if not as_json:
        click.echo(f"{len(decisions)} {'would be decided' if dry_run else 'decided'}", err=True)
    return 0


def _line(verb: str, decision: Decision) -> str:
    if decision.topic is None:
        return verb
    place = f"{decision.topic}/{decision.partition}" + ("" if decision.offset is None else f"@{decision.offset}")
    return f"{verb} {decision.key}  {place}  {decision.code}"
