"""`drx-bridge doctor`: everything the ingress needs, one line each, and what to do about what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import click

from bridge.commands.doctor_checks import check_disk, check_registry, check_risks, check_sources
from bridge.commands.doctor_kafka import check_kafka
from bridge.commands.doctor_spool import check_spool
from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable
from bridge.runtime.broker_option import asking, bootstrap_option
from bridge.runtime.findings import Finding, Report
from bridge.runtime.log_findings import check_id_keys
from bridge.runtime.logging import log_errors_to_stderr
from bridge.settings import Settings, load_settings
from bridge.sources import address_limit

MISCONFIGURED_EXIT = 2


@click.command()
@bootstrap_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(*, bootstrap_servers: str | None, as_json: bool) -> int:
    """Check configuration, secrets, Kafka, topics, registry, spool and disk.

    Exit 0 if the ingress can do its work, 1 if it cannot, 2 if the configuration cannot be read.
    """
    log_errors_to_stderr()
    report = Report(as_json=as_json)
    try:
        settings = asking(load_settings(), bootstrap_servers)
        routes = RoutingTable(settings.kafka.routes)
        address_limit(settings.http)
    except ConfigError as exc:
        report.tell(Finding("config", "failed", str(exc), "`drx-bridge config` shows every setting"))
        return report.close(MISCONFIGURED_EXIT)
    asyncio.run(_examine(settings, routes, tell=report.tell))
    return report.close(int(report.failed))


async def _examine(settings: Settings, routes: RoutingTable, *, tell: Callable[[Finding], None]) -> None:
    tell(Finding("config", "ok", f"every setting is known and within its bounds; this instance is {settings.instance}"))
    for finding in check_risks(settings):
        tell(finding)
    tell(check_id_keys(settings.log.id_key_dir, setting="BRIDGE_LOG__ID_KEY_DIR"))
    for finding in check_sources(settings, now=datetime.now(UTC)):
        tell(finding)
    async for finding in check_kafka(settings.kafka, routes=routes):
        tell(finding)
    async for finding in check_registry(settings.registry, routes=routes):
        tell(finding)
    for finding in check_spool(settings.spool):
        tell(finding)
    for finding in check_disk(settings):
        tell(finding)
