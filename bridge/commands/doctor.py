"""`drx-bridge doctor`: everything the ingress needs, one line each, and what to do about what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import click
import orjson
from rich.console import Console
from rich.text import Text

from bridge.commands.doctor_checks import (
    Finding,
    Grade,
    check_disk,
    check_log,
    check_registry,
    check_risks,
    check_sources,
)
from bridge.commands.doctor_kafka import check_kafka
from bridge.commands.doctor_spool import check_spool
from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable
from bridge.runtime.logging import log_errors_to_stderr, silence_kafka_client
from bridge.settings import Settings, load_settings

SYMBOLS: dict[Grade, tuple[str, str]] = {
    "ok": ("✓", "bold green"),
    "warning": ("!", "bold yellow"),
    "failed": ("✗", "bold red"),
}
CHECK_WIDTH = 14
MISCONFIGURED_EXIT = 2


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(*, as_json: bool) -> int:
    """Check configuration, secrets, Kafka, topics, registry, spool and disk.

    Exit 0 if the ingress can do its work, 1 if it cannot, 2 if the configuration cannot be read.
    """
    silence_kafka_client()
    log_errors_to_stderr()
    findings: list[Finding] = []
    console = Console(soft_wrap=True)

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            console.print(finding_line(finding))

    try:
        settings = load_settings()
        routes = RoutingTable(settings.kafka.routes)
    except ConfigError as exc:
        tell(Finding("config", "failed", str(exc), "`drx-bridge config` shows every setting"))
        code = MISCONFIGURED_EXIT
    else:
        asyncio.run(_examine(settings, routes, tell=tell))
        code = int(any(finding.verdict == "failed" for finding in findings))
    if as_json:
        checks = [
            {"check": each.check, "verdict": each.verdict, "says": each.says, "advice": each.advice or None}
            for each in findings
        ]
        click.echo(orjson.dumps({"ok": code == 0, "checks": checks}))
    return code


async def _examine(settings: Settings, routes: RoutingTable, *, tell: Callable[[Finding], None]) -> None:
    tell(Finding("config", "ok", f"every setting is known and within its bounds; this instance is {settings.instance}"))
    for finding in check_risks(settings):
        tell(finding)
    tell(check_log(settings))
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


def finding_line(finding: Finding) -> Text:
    """Return what people see of a finding."""
    symbol, style = SYMBOLS[finding.verdict]
    line = Text.assemble((symbol, style), (f" {finding.check:<{CHECK_WIDTH}} ", "bold"), finding.says)
    return line.append(f"  → {finding.advice}", "yellow") if finding.advice else line
