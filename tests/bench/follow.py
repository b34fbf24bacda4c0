"""What an idle replica uses while it follows one that takes deliveries: CPU seconds per second, with and without it."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bridge.dev.kafka import create_topics
from tests.bench.ingress import CONNECTIONS, WARM_UP_REQUESTS
from tests.bench.servers import Server, bridge
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

# Deliveries a second of the other replica: none, a large health system's peak several times over, a national one's.
RATES = (0.0, 150.0, 2_000.0)
SPAN_S, QUICK_SPAN_S = 60.0, 5.0
# As in earnest: a follow has a fetch under way at each of them.
BROKERS = 3
MODES = ("off", "on")
# More than one mode sends.
DELIVERIES = 1_000_000


def run(console: Console, results: Path, *, quick: bool = False) -> dict[str, Any]:
    """Measure; the figures are shares of one core."""
    directory = Path(tempfile.mkdtemp(prefix="follow-", dir=results)).absolute()
    cluster = EmbeddedCluster(directory, brokers=BROKERS)
    cluster.start()
    try:
        create_topics(cluster.bootstrap_servers, STANDARD_TOPICS)
        found = {
            mode: _measure(console, directory / mode, cluster, mode, first=number * DELIVERIES, quick=quick)
            for number, mode in enumerate(MODES)
        }
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return {"machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]}, "cores": found}


def _measure(
    console: Console, directory: Path, cluster: EmbeddedCluster, mode: str, *, first: int, quick: bool
) -> dict[str, float]:
    servers = []
    try:
        for name in ("busy", "idle"):
            (directory / name).mkdir(parents=True)
            settings = {"BRIDGE_INSTANCE": name, "BRIDGE_DEDUPE__FOLLOW": mode}
            servers.append(bridge(directory / name, cluster.bootstrap_servers, settings))
            servers[-1].start()
        busy, idle = servers
        # What the run before has sent would be a repeat.
        busy.made = first
        busy.load(WARM_UP_REQUESTS, connections=CONNECTIONS)
        found = {}
        for rate in RATES:
            found[f"{rate:.0f}"] = _beside(busy, idle, rate, QUICK_SPAN_S if quick else SPAN_S)
            console.print(f"follow {mode}, beside {rate:5.0f}/s: {found[f'{rate:.0f}']:.3f} of a core")
        return found
    finally:
        for server in servers:
            server.stop()


def _beside(busy: Server, idle: Server, rate: float, span_s: float) -> float:
    before_s, began = idle.cpu_s, time.monotonic()
    if rate:
        busy.load(round(rate * span_s), connections=CONNECTIONS, rate=rate)
    else:
        time.sleep(span_s)
    return (idle.cpu_s - before_s) / (time.monotonic() - began)


def table(figures: dict[str, Any]) -> Table:
    """Show the figures."""
    shown = Table(title="CPU of an idle replica, in cores")
    shown.add_column("the other one takes")
    for mode in MODES:
        shown.add_column(f"follow {mode}", justify="right")
    for rate in RATES:
        shown.add_row(f"{rate:,.0f}/s", *(f"{figures['cores'][mode][f'{rate:.0f}']:.3f}" for mode in MODES))
    return shown
