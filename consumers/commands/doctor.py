"""`drx-consumer doctor`: check what a consumer needs, and list where health information goes, one line each."""

import asyncio
import contextlib
import fnmatch
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click

from bridge.errors import BridgeError, ConfigError, TransientError
from bridge.kafka.consumed_record import TopicPartition
from bridge.runtime.findings import Finding, Report
from bridge.runtime.process import MISCONFIGURED, bootstrap_option
from bridge.runtime.screen import TIME
from consumers.api import WINDOW_RECORDS, Consumer
from consumers.commands.installed import Chosen, choose
from consumers.options import database_of
from consumers.postgres.migrate import pending_tables
from consumers.postgres.pool import Database
from consumers.runtime.decoding import KNOWN_TYPES
from consumers.runtime.groups import open_group
from consumers.runtime.operator import Progress, opened_at, standings
from consumers.runtime.partition import SETTLED_WINDOWS
from consumers.runtime.start_checks import check_cluster, check_tables, prepare
from consumers.runtime.start_positions import Adoption, Stopped, decide_start, hint
from consumers.runtime.transport import Bounds
from consumers.settings import check_settings

Add = Callable[..., None]

# Placeholder bounds of a partition that no longer exists: its topic was recreated with fewer.
NO_LOG = Bounds(0, 0)


@dataclass(frozen=True, slots=True)
class Kept:
    """The state of a group in PostgreSQL."""

    misfit: str = ""  # why its own tables do not match its progress, with the remedy; empty if they do
    # Migrations that `init` would apply, such as `drx_consumer 1`. With these or `misfit`, the rest is not queried.
    missing: Collection[str] = ()
    progress: Mapping[TopicPartition, Progress] = field(default_factory=dict)
    opened_at: datetime | None = None  # when the park limit opened; None while it is closed
    refused: str = ""  # why the target of its handlers fails the start check; empty if it passes


@click.command()
@bootstrap_option
@click.argument("name")
@click.option("--schema", help="Schema of a second group that is built while the live one runs.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(*, bootstrap_servers: str | None, name: str, schema: str | None, as_json: bool) -> int:
    """Check settings, PostgreSQL, Kafka and the sink of the consumer NAME, and show where health information goes.

    Exit 0 if it can do its work, 1 if it cannot, 2 if its configuration cannot be used.
    """
    report = Report(as_json=as_json)
    try:
        chosen = choose(name, schema=schema, bootstrap_servers=bootstrap_servers)
    except ConfigError as exc:
        where = "docs/consumer-settings.md lists the settings of every consumer, its own page the rest"
        report.add(Finding("config", "failed", str(exc), where))
        return report.close(MISCONFIGURED)
    report.add(Finding("config", "ok", f"every setting can be used; the group is {chosen.consumer.group}"))
    report.add(*check_settings(chosen.settings))
    if not report.failed:
        consumer = chosen.consumer
        report.add(*type_findings(consumer), *phi_findings(consumer, chosen.settings.postgres.address()))
        asyncio.run(_examine(chosen, report.add))
    return report.close(int(report.failed))


def type_findings(consumer: Consumer) -> list[Finding]:
    """Warn of patterns that match no type; no error, since a newer release may have the type."""
    vain = [each for each in consumer.types if not fnmatch.filter(KNOWN_TYPES, each)]
    found = f"no event is of type {', '.join(vain)}"
    return [Finding("types", "warning", found, "docs/events.md has all types")] if vain else []


def phi_findings(consumer: Consumer, dsn: str) -> list[Finding]:
    """List where health information goes; of `dsn` only server and database are shown."""
    stored_at = f"PostgreSQL at {database_of(dsn)}"
    kept = [Finding("phi", "ok", f"parked events, whole, and keys: {stored_at}")]
    if consumer.publishes:
        topics = ", ".join(sorted(consumer.publishes))
        kept.append(Finding("phi", "ok", f"what it publishes, in clear: {stored_at} until it is written to {topics}"))
    if consumer.discloses is None:
        advice = "set Consumer.discloses to where its handler sends them"
        return [*kept, Finding("phi", "warning", "it does not declare where it sends events", advice)]
    return [*kept, *(Finding("phi", "ok", each) for each in consumer.discloses)]


async def _examine(chosen: Chosen, add: Add) -> None:
    consumer, kept = chosen.consumer, Kept()
    try:
        kept = await _kept(chosen)
        add(Finding("postgres", "ok", f"available; {len(kept.progress)} partitions have a position"))
        begins_by_itself = chosen.settings.kafka.offset_reset != "none"
        add(*state_findings(chosen.named, kept, begins_by_itself=begins_by_itself))
    except ConfigError as exc:
        add(Finding("postgres", "failed", str(exc), "see CONSUMER_POSTGRES__DSN"))
    try:
        async with chosen.open_group() as view:
            bounds, cluster_id = await view.bounds(), await view.cluster_id()
        add(Finding("kafka", "ok", f"{', '.join(sorted(consumer.topics))}: {len(bounds)} partitions"))
        add(*offset_findings(chosen, kept, bounds, cluster_id=cluster_id))
    except BridgeError as exc:
        add(Finding("kafka", "failed", str(exc), "check CONSUMER_KAFKA__… and that the topics exist"))
    if consumer.publishes:
        add(await _published(chosen))
    if not kept.refused and (consumer.around is not None or consumer.ping is not None):
        tables = chosen.open_database("doctor") if kept.progress else contextlib.nullcontext()
        add(*await _sink(consumer, tables))


async def _kept(chosen: Chosen) -> Kept:
    consumer = chosen.consumer
    async with chosen.open_database("doctor") as database:
        await database.fetchval("select 1")  # so that an invalid DSN is not reported as a mismatch of tables
        try:
            await check_tables(database, consumer)
        except ConfigError as exc:
            return Kept(misfit=str(exc))
        if missing := await pending_tables(database, consumer):
            return Kept(missing=missing)
        progress = await standings(database, consumer.group, consumer.topics)
        return Kept("", (), progress, await opened_at(database, consumer.group), await _refused(database, consumer))


async def _refused(database: Database, consumer: Consumer) -> str:
    """Prepare the consumer as at startup; the ping detects an unavailable sink."""
    try:
        with contextlib.suppress(TransientError):
            await prepare(database, consumer)
    except ConfigError as exc:
        return str(exc)
    return ""


def state_findings(named: str, kept: Kept, *, begins_by_itself: bool) -> Iterator[Finding]:
    """Yield start check failures and parked records; `named` is the consumer as in a command line."""
    never = any(each.endswith(" 1") for each in kept.missing)
    has_begun = any(each.next_offset is not None for each in kept.progress.values())
    if kept.misfit:
        yield Finding("init", "failed", kept.misfit)
    elif kept.missing and not never and not begins_by_itself:
        yield Finding("init", "failed", f"its tables lack {', '.join(kept.missing)}", f"drx-consumer init {named}")
    elif not has_begun and not begins_by_itself:
        advice = f"drx-consumer init {named} --from earliest|latest|TIME"
        yield Finding("init", "failed", "not initialised", advice)
    if kept.refused:
        yield Finding("sink", "failed", kept.refused, "it does not start either")
    if kept.opened_at is not None:
        found = f"park limit open since {kept.opened_at:{TIME}}: nothing is handled until it is resumed"
        yield Finding("parking", "failed", found, f"drx-consumer parked resume {named} --reason …")
    for tp, each in sorted(kept.progress.items()):
        if each.above > WINDOW_RECORDS:
            found = f"{tp.topic}/{tp.partition}: offset {each.next_offset} waits, and {each.above} after it do not"
            advice = f"see ConsumerStuck; at some {SETTLED_WINDOWS * WINDOW_RECORDS} the whole partition waits"
            yield Finding("settling", "warning", found, advice)
    if keys := sum(each.parked_keys for each in kept.progress.values()):
        events = sum(each.parked_events for each in kept.progress.values())
        found = f"parked keys: {keys}, records: {events}"
        yield Finding("parking", "warning", found, f"drx-consumer parked list {named}")


def offset_findings(
    chosen: Chosen, kept: Kept, bounds: Mapping[TopicPartition, Bounds], *, cluster_id: str
) -> Iterator[Finding]:
    """Yield why a start or a partition would not continue from the stored offsets."""
    try:
        accepted = chosen.settings.kafka.accept_cluster_id
        check_cluster(chosen.consumer.name, kept.progress.values(), cluster_id=cluster_id, accepted=accepted)
    except ConfigError as exc:
        yield Finding("offsets", "failed", str(exc))
        return
    for tp, each in sorted(kept.progress.items()):
        if each.next_offset is None:
            continue  # reported as a separate finding
        verdict = decide_start(Adoption(each.next_offset, None), bounds=bounds.get(tp, NO_LOG), policy="none")
        if isinstance(verdict, Stopped):
            advice = hint(verdict.code, consumer=chosen.named, tp=tp)
            yield Finding("offsets", "failed", f"{tp.topic}/{tp.partition} {verdict.code}", advice)


async def _published(chosen: Chosen) -> Finding:
    """Check the topics that it publishes to; records for a missing topic wait in the outbox."""
    consumer, topics = chosen.consumer, ", ".join(sorted(chosen.consumer.publishes))
    try:
        async with open_group(chosen.settings.kafka.connection, consumer.group, consumer.publishes) as view:
            return Finding("publishes", "ok", f"{topics}: {len(view.tps)} partitions")
    except BridgeError as exc:
        advice = "drx-bridge topics create --topic NAME --like drx.prescriptions.v1"
        return Finding("publishes", "failed", str(exc), advice)


async def _sink(consumer: Consumer, tables: contextlib.AbstractAsyncContextManager[Any]) -> list[Finding]:
    """Open the sink, or `tables`, ping it and list what it lacks, within the timeout of a handler."""
    lacks: Sequence[str] = ()
    try:
        opened = tables if consumer.around is None else consumer.around()
        async with asyncio.timeout(consumer.handler_timeout_s), opened as resource:
            if consumer.ping is not None:
                await consumer.ping(resource)
            if consumer.lacks is not None:
                lacks = await consumer.lacks(resource)
    except ConfigError as exc:
        return [Finding("sink", "failed", str(exc), "change this setting")]
    except Exception as exc:  # noqa: BLE001 - third-party code, which may raise anything
        # Its message may contain what was sent.
        what = exc.code if isinstance(exc, BridgeError) else type(exc).__name__
        return [Finding("sink", "failed", f"does not respond as expected: {what}", "check the sink")]
    advice = "see its page in docs, and the runbook of its alert"
    found = Finding("sink", "ok", "responds" if consumer.ping is not None else "can be opened")
    return [found, *(Finding("sink", "warning", f"lacks {each}", advice) for each in lacks)]
