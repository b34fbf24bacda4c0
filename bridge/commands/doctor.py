"""`drx-bridge doctor`: everything the ingress needs, one line each, and what to do about what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import click

from bridge.commands.doctor_checks import check_registry, check_windows
from bridge.commands.doctor_kafka import check_kafka
from bridge.commands.doctor_spool import check_spool
from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable
from bridge.runtime.broker_option import asking, bootstrap_option
from bridge.runtime.findings import Finding, Report
from bridge.runtime.logging import silence_kafka_client
from bridge.runtime.process import MISCONFIGURED
from bridge.settings import Settings, load_settings
from bridge.start_checks import check_start


@click.command()
@bootstrap_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(*, bootstrap_servers: str | None, as_json: bool) -> int:
    """Check configuration, secrets, Kafka, topics, registry and spool.

    Exit 0 if the ingress can do its work, 1 if it cannot, 2 if the configuration cannot be read.
    """
    silence_kafka_client()
    report = Report(as_json=as_json)
    try:
        settings = asking(load_settings(), bootstrap_servers)
    except ConfigError as exc:
        report.add(Finding("config", "failed", str(exc), "`drx-bridge config` shows every setting"))
        return report.close(MISCONFIGURED)
    asyncio.run(_examine(settings, add=report.add))
    return report.close(int(report.failed))


async def _examine(settings: Settings, *, add: Callable[[Finding], None]) -> None:
    add(Finding("config", "ok", f"every setting is known and within its bounds; this instance is {settings.instance}"))
    refused = set()
    for finding in (*check_start(settings), *check_windows(settings, now=datetime.now(UTC))):
        add(finding)
        if finding.verdict == "failed":
            refused.add(finding.check)
    # Where a start would be refused, there is nothing to ask.
    routes = RoutingTable({} if "routes" in refused else settings.kafka.routes)
    if "kafka" not in refused:
        async for finding in check_kafka(settings.kafka, routes=routes):
            add(finding)
    if "registry" not in refused:
        async for finding in check_registry(settings.registry, routes=routes):
            add(finding)
    for finding in check_spool(settings.spool):
        add(finding)
