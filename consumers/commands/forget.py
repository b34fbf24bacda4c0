"""`drx-consumer forget`: remove the stored state of a group, so that its name can be used again."""

import asyncio

import click

from bridge.runtime.audit import audited
from bridge.runtime.process import bootstrap_option
from bridge.runtime.screen import print_json
from consumers.commands.installed import Chosen
from consumers.commands.options import decision_options, json_option, of_consumer
from consumers.runtime.operator import By, forget_group


@click.command()
@bootstrap_option
@of_consumer
@decision_options(needs_reason=True)
@json_option
def forget(*, chosen: Chosen, by: By, as_json: bool) -> int:
    """Remove progress, inbox, parked records and offsets of the consumer NAME; its own tables and the audit stay.

    The group must have no members. Needs a reason.
    """
    group = chosen.consumer.group
    with audited("forget", group=group, **by._asdict()) as ended:
        forgotten = asyncio.run(_forget(chosen, by))
        ended.update(forgotten)
    if as_json:
        print_json({"verb": "forget", "dry_run": by.dry_run, "group": group, **forgotten})
    else:
        counts = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in forgotten.items())
        click.echo(f"group {group} {'would be' if by.dry_run else 'is'} forgotten: {counts}")
    return 0


async def _forget(chosen: Chosen, by: By) -> dict[str, int]:
    group = chosen.consumer.group
    async with chosen.open_database("forget") as database:
        async with chosen.open_group() as view:
            await view.refuse_members(session_s=chosen.settings.kafka.session_s)
            if not by.dry_run:
                # First, since Kafka refuses it if a member has joined meanwhile; such a member would commit its offsets
                # again.
                await view.forget()
        return await forget_group(database, group, by)
