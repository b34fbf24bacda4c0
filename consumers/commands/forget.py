"""`drx-consumer forget`: remove what is kept of a group, so that its name can begin anew."""

from __future__ import annotations

import asyncio

import click
import orjson

from bridge.runtime.audit import audited
from bridge.runtime.broker_option import bootstrap_option
from bridge.runtime.logging import silence_kafka_client
from consumers.commands.installed import Chosen, choose
from consumers.commands.options import decision_options, json_option, name_argument, require_reason
from consumers.runtime.groups import open_group
from consumers.runtime.operator import Forgotten, forget_group


@click.command()
@bootstrap_option
@name_argument
@decision_options
@json_option
def forget(
    *,
    bootstrap_servers: str | None,
    name: str,
    schema: str | None,
    actor: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove progress, inbox, parked records and offsets of the consumer NAME; its own tables and the audit stay.

    The group must have no members. Needs a reason.
    """
    require_reason(reason)
    chosen = choose(name, schema=schema, bootstrap_servers=bootstrap_servers)
    silence_kafka_client()
    group = chosen.consumer.group
    with audited("forget", actor=actor, reason=reason, dry_run=dry_run, group=group) as ended:
        forgotten = asyncio.run(_forget(chosen, actor=actor, reason=reason, dry_run=dry_run))
        ended.update(forgotten._asdict())
    if as_json:
        click.echo(orjson.dumps({"verb": "forget", "dry_run": dry_run, "group": group, **forgotten._asdict()}))
        return 0
    counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in forgotten._asdict().items())
    click.echo(f"group {group} {'would be' if dry_run else 'is'} forgotten: {counts}")
    return 0


async def _forget(chosen: Chosen, *, actor: str, reason: str, dry_run: bool) -> Forgotten:
    group = chosen.consumer.group
    async with chosen.open_database("forget") as database:
        async with open_group(chosen.settings.kafka.connection, group, chosen.consumer.topics) as view:
            await view.refuse_members(session_s=chosen.settings.kafka.session_s)
            if not dry_run:
                # First: Kafka refuses it if a member has joined meanwhile. Such a member commits the offsets again
                # while there is progress.
                await view.forget()
        return await forget_group(database, group, actor=actor, reason=reason, dry_run=dry_run)
