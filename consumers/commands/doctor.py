"""`drx-consumer doctor`: what a consumer needs, and where health information goes, one line each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click

from bridge.errors import BridgeError, ConfigError
from bridge.runtime.broker_option import bootstrap_option
from bridge.runtime.findings import Finding, Report
from bridge.runtime.log_findings import check_id_keys
from bridge.runtime.logging import log_errors_to_stderr
from consumers.api import Consumer
from consumers.commands.installed import Chosen, choose
from consumers.commands.options import name_argument
from consumers.options import database_of
from consumers.runtime.groups import open_group
from consumers.runtime.operator import standings
from consumers.settings import refuse_risks

Tell = Callable[[Finding], None]

_MISCONFIGURED_EXIT = 2


@click.command()
@bootstrap_option
@name_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(*, bootstrap_servers: str | None, name: str, schema: str | None, as_json: bool) -> int:
    """Check settings, PostgreSQL, Kafka and the sink of the consumer NAME, and say where health information goes.

    Exit 0 if it can do its work, 1 if it cannot, 2 if its configuration cannot be used.
    """
    log_errors_to_stderr()
    report = Report(as_json=as_json)
    try:
        chosen = choose(name, schema=schema, bootstrap_servers=bootstrap_servers)
        address = chosen.settings.postgres.address()
        refuse_risks(chosen.settings)
    except ConfigError as exc:
        report.tell(Finding("config", "failed", str(exc), "docs/consumer-settings.md has every setting"))
        return report.close(_MISCONFIGURED_EXIT)
    report.tell(Finding("config", "ok", f"every setting can be used; the group is {chosen.consumer.group}"))
    report.tell(check_id_keys(chosen.settings.log.id_key_dir, setting="CONSUMER_LOG__ID_KEY_DIR"))
    for finding in phi_findings(chosen.consumer, address):
        report.tell(finding)
    asyncio.run(_examine(chosen, report.tell))
    return report.close(int(report.failed))


def phi_findings(consumer: Consumer, dsn: str) -> list[Finding]:
    """Say where health information goes; nothing of `dsn` but server and database."""
    place = f"PostgreSQL at {database_of(dsn)}"
    kept = [Finding("phi", "ok", f"parked events, whole, and keys: {place}")]
    if consumer.publishes:
        topics = ", ".join(sorted(consumer.publishes))
        kept.append(Finding("phi", "ok", f"what it publishes, in clear: {place} until it is written to {topics}"))
    if consumer.discloses is None:
        advice = "set Consumer.discloses to where its handler sends them"
        return [*kept, Finding("phi", "warning", "it does not say what becomes of the events it handles", advice)]
    return [*kept, *(Finding("phi", "ok", each) for each in consumer.discloses)]


async def _examine(chosen: Chosen, tell: Tell) -> None:
    consumer = chosen.consumer
    try:
        async with chosen.open_database("doctor") as database:
            stored = await standings(database, consumer.group, consumer.topics)
        tell(Finding("postgres", "ok", f"answers; {len(stored)} partitions have a position"))
    except ConfigError as exc:
        tell(Finding("postgres", "failed", str(exc), "see CONSUMER_POSTGRES__DSN"))
    try:
        async with open_group(chosen.settings.kafka.connection, consumer.group, consumer.topics) as view:
            bounds = await view.bounds()
        tell(Finding("kafka", "ok", f"{', '.join(sorted(consumer.topics))}: {len(bounds)} partitions"))
    except BridgeError as exc:
        tell(Finding("kafka", "failed", str(exc), "see CONSUMER_KAFKA__… and that the topics are there"))
    if consumer.around is not None or consumer.ping is not None:
        tell(await _sink(consumer))


async def _sink(consumer: Consumer) -> Finding:
    """Open what handlers need and ask whether it works, all within the time of a handler."""
    try:
        async with asyncio.timeout(consumer.handler_timeout_s):
            if consumer.around is None:
                await _ping(consumer, None)
            else:
                async with consumer.around() as resource:
                    await _ping(consumer, resource)
    except ConfigError as exc:
        return Finding("sink", "failed", str(exc), "change this setting")
    except BridgeError as exc:
        return Finding("sink", "failed", f"does not answer as it should: {exc.code}", "see the page of the consumer")
    except Exception as exc:  # noqa: BLE001 - a sink of another team: anything may happen
        # Its message may hold what was sent.
        return Finding("sink", "failed", f"does not answer as it should: {type(exc).__name__}", "look at the sink")
    return Finding("sink", "ok", "answers" if consumer.ping is not None else "can be opened")


async def _ping(consumer: Consumer, resource: object) -> None:
    if consumer.ping is not None:
        await consumer.ping(resource)
