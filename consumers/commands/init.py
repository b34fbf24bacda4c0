"""`drx-consumer init`: create the tables of a consumer, and set its starting offsets in PostgreSQL and Kafka."""

import asyncio
from datetime import datetime
from typing import Any, NamedTuple

import click

from bridge.errors import ConfigError, TransientError
from bridge.kafka.consumed_record import TopicPartition
from bridge.kafka.reader import ReadError
from bridge.runtime.audit import audited
from bridge.runtime.process import bootstrap_option
from bridge.runtime.screen import print_json
from consumers.commands.installed import Chosen
from consumers.commands.options import decision_options, json_option, of_consumer
from consumers.options import aware_instant
from consumers.postgres.migrate import migrate_tables, pending_tables
from consumers.postgres.pool import Database
from consumers.runtime.groups import GroupView
from consumers.runtime.operator import By, lock_progress, parked_from, set_offsets, standings
from consumers.runtime.start_checks import accept_tables, check_tables, prepare

EARLIEST, LATEST = "earliest", "latest"
Begin = str | datetime | int
_Move = tuple[TopicPartition, int | None, int]  # a partition, and its offset before and after


class InitOptions(NamedTuple):
    """The options of the command."""

    begin: Begin | None  # `earliest`, `latest`, an instant, an offset, or None: only the tables
    partition: TopicPartition | None  # the only partition to set; None: all
    force: bool  # also move partitions that have an offset
    # Set partitions without an offset and leave the rest, even if the group has members; without Kafka, succeed if the
    # group has an offset in each of its topics.
    unless_placed: bool
    go_on: bool  # create tables without the data of records that the group has read already


def _begin(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Begin | None:
    if value is None or value in {EARLIEST, LATEST}:
        return value
    if value.isascii() and value.isdigit():
        return int(value)
    if (moment := aware_instant(value)) is None:
        msg = "earliest, latest, an instant with its zone such as 2026-09-14T15:00:00Z, or an offset"
        raise click.BadParameter(msg)
    return moment


def _partition(_context: click.Context, _parameter: click.Parameter, value: str | None) -> TopicPartition | None:
    if value is None:
        return None
    topic, slash, number = value.rpartition("/")
    if not topic or not slash or not (number.isascii() and number.isdigit()):
        raise click.BadParameter("a topic and the number of a partition, such as drx.prescriptions.v1/3")
    return TopicPartition(topic, int(number))


@click.command()
@bootstrap_option
@of_consumer
@click.option(
    "--from",
    "begin",
    callback=_begin,
    metavar="earliest|latest|TIME|OFFSET",
    help="Where to begin; default: only create the tables.",
)
@click.option("--partition", callback=_partition, metavar="TOPIC/NUMBER", help="Set the offset of this partition only.")
@click.option("--force", is_flag=True, help="Move a group that has offsets; events in its inbox are not applied again.")
@click.option(
    "--unless-placed", is_flag=True, help="Leave a group that has offsets unchanged; safe in every deployment."
)
@click.option("--go-on", is_flag=True, help="Create empty tables although the group has read events before.")
@decision_options(needs_reason=False)
@json_option
def init(*, chosen: Chosen, by: By, as_json: bool, **options: Any) -> int:
    """Create or upgrade the tables of the consumer NAME, and set its starting offsets.

    Partitions with progress are left unchanged, unless --force is given. The group must have no members. --force and
    --go-on need a reason.
    """
    want = InitOptions(**options)
    if (want.force or want.go_on) and not by.reason.strip():
        msg = f"{'--force' if want.force else '--go-on'} needs --reason: it is recorded with the change"
        raise click.UsageError(msg)
    if want.force and want.unless_placed:
        raise click.UsageError("--unless-placed leaves a group where it is, and --force moves it")
    if isinstance(want.begin, int) and want.partition is None:
        raise click.UsageError("--from OFFSET needs --partition: each has its own offsets")
    asked = want._asdict() | {"partition": want.partition and "{}/{}".format(*want.partition)}
    with audited("init", group=chosen.consumer.group, **asked, **by._asdict()) as ended:
        starts = asyncio.run(_init(chosen, want, by))
        ended["starts"] = {f"{topic}/{number}": offset for (topic, number), _, offset in starts}
    for (topic, number), before, offset in starts:
        if as_json:
            print_json({"topic": topic, "partition": number, "before": before, "next_offset": offset})
        else:
            click.echo(f"{topic}/{number}: {offset}" + ("" if before is None else f", before {before}"))
    return 0


async def _init(chosen: Chosen, want: InitOptions, by: By) -> list[_Move]:
    consumer, dry_run = chosen.consumer, by.dry_run
    async with chosen.open_database("init") as database:
        # Before creating tables, so that an install that fails for a missing topic leaves nothing behind.
        await _see_topics(database, chosen, want)
        if not want.go_on:
            await check_tables(database, consumer)
        elif not dry_run:
            await accept_tables(database, consumer, by)
        missing = await pending_tables(database, consumer)
        if missing:
            click.echo(f"tables to create or upgrade: {', '.join(missing)}", err=True)
        if not dry_run:
            await migrate_tables(database, consumer, notice=lambda text: click.echo(text, err=True))
            try:
                await prepare(database, consumer)
            except TransientError as exc:
                raise ConfigError(f"{consumer.name} cannot use its target: {exc.code}") from None
        usable = not (dry_run and missing)
        if want.begin is None:
            return []
        try:
            async with chosen.open_group() as view:
                return await _set_offsets(database if usable else None, view, chosen, want, by)
        except ReadError:
            if not (want.unless_placed and usable and await _is_placed(database, chosen)):
                raise
            click.echo("Kafka is away: existing offsets were left as they are", err=True)
            return []


async def _see_topics(database: Database, chosen: Chosen, want: InitOptions) -> None:
    """Read the topics from Kafka, unless only tables are created."""
    if want.begin is None:
        return
    try:
        async with chosen.open_group():
            pass
    except ReadError:
        if not (want.unless_placed and await _is_placed(database, chosen)):
            raise


async def _is_placed(database: Database, chosen: Chosen) -> bool:
    """Return whether the group has an offset in each of its topics; False if there are no tables."""
    if not await database.fetchval("select to_regclass('drx_consumer.progress') is not null"):
        return False
    stored = await standings(database, chosen.consumer.group, chosen.consumer.topics)
    return {at.topic for at, each in stored.items() if each.next_offset is not None} == set(chosen.consumer.topics)


async def _set_offsets(
    database: Database | None, view: GroupView, chosen: Chosen, want: InitOptions, by: By
) -> list[_Move]:
    """Set the offsets that may be set; a missing database means no progress, in a dry run."""
    consumer = chosen.consumer
    if not want.unless_placed:
        await view.refuse_members(session_s=chosen.settings.kafka.session_s)
    stored = {} if database is None else await standings(database, consumer.group, consumer.topics)
    before = {at: each.next_offset for at, each in stored.items() if each.next_offset is not None}
    wanted = await _offsets(view, want)
    offsets = wanted if want.force else {at: offset for at, offset in wanted.items() if at not in before}
    if not offsets:
        if want.unless_placed:
            return []
        msg = f"{consumer.group} is placed in every partition: --unless-placed leaves it, --force --reason … moves it"
        raise ConfigError(msg)
    if database is not None and not by.dry_run:
        async with database.transaction(calls_services=True) as connection:
            await lock_progress(connection, consumer.group, consumer.topics)
            if parked := await parked_from(connection, consumer.group, offsets):
                # A recreated topic has other records at these offsets, which would be mistaken for the parked ones.
                raise ConfigError(f"{parked} parked events lie beyond that start; release, skip or drop them first")
            cluster_id = await view.cluster_id()
            offsets = await set_offsets(
                connection, consumer.group, offsets, by=by, cluster_id=cluster_id, move=want.force
            )
            if not (want.unless_placed and (await view.state()).live):
                # Inside the transaction, since Kafka refuses it if a member has joined meanwhile. Members commit
                # adopted offsets.
                await view.commit(offsets)
    return [(at, before.get(at), offset) for at, offset in sorted(offsets.items())]


async def _offsets(view: GroupView, want: InitOptions) -> dict[TopicPartition, int]:
    begin = want.begin
    bounds = await view.bounds()
    if want.partition is not None:
        if want.partition not in bounds:
            msg = f"this consumer's topics have no partition {want.partition.topic}/{want.partition.partition}"
            raise ConfigError(msg)
        bounds = {want.partition: bounds[want.partition]}
    if isinstance(begin, int):
        for at, (start, end) in bounds.items():
            if not start <= begin <= end:
                raise ConfigError(f"{at.topic}/{at.partition} has the offsets {start} to {end}, not {begin}")
        return dict.fromkeys(bounds, begin)
    if isinstance(begin, datetime):
        found = await view.offsets_at(int(begin.timestamp() * 1000))
        return {tp: end if (offset := found[tp]) is None else offset for tp, (_, end) in bounds.items()}
    return {tp: each.start if begin == EARLIEST else each.end for tp, each in bounds.items()}
