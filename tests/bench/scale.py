"""One and two replicas behind HAProxy, on one and three brokers; then one replica for millions of deliveries.

HAProxy hands out requests in turn, which is the dearest way: each replica reads all that the other one writes. It keeps
no order, so it is none for earnest (docs/operations.md has one that does).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bridge.dev.kafka import create_topics
from bridge.dev.ports import free_port
from tests.bench.ingress import CONNECTIONS, ROUND_REQUESTS, WARM_UP_REQUESTS, found_in
from tests.bench.report import spread
from tests.bench.servers import Server, bridge
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster
from tests.faults.ingress.balancer import ROUND_ROBIN, find_haproxy, haproxy

ROUNDS = 3
BROKERS = (1, 3)
REPLICAS = (1, 2)
# Some years of a small pharmacy, in 20 minutes; quickly, two loads in each part.
LONG, QUICK_LONG = 10_000_000, 20 * ROUND_REQUESTS
PARTS = 10


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all of it; CPU is that of the replicas together, without HAProxy."""
    program = find_haproxy()
    if program is None:
        sys.exit("scale: haproxy is not installed: `make fault-tools` as root on a Debian, or install it by hand")
    return {
        "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
        "layouts": [
            _layout(console, program, brokers, replicas, rounds=1 if quick else ROUNDS)
            for brokers in BROKERS
            for replicas in REPLICAS
        ],
        "long": _long(console, QUICK_LONG if quick else LONG),
    }


@contextmanager
def _replicas(brokers: int, count: int) -> Iterator[tuple[Path, EmbeddedCluster, list[Server]]]:
    """Run a new cluster and as many replicas on it."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    cluster = EmbeddedCluster(directory, brokers=brokers)
    cluster.start()
    servers: list[Server] = []
    try:
        create_topics(cluster.bootstrap_servers, STANDARD_TOPICS)
        for number in range(count):
            home = directory / f"replica-{number}"
            home.mkdir()
            servers.append(bridge(home, cluster.bootstrap_servers, {"BRIDGE_INSTANCE": f"bench-{number}"}))
            servers[-1].start()
        yield directory, cluster, servers
    finally:
        for server in servers:
            server.stop()
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _layout(console: Console, program: str, brokers: int, replicas: int, *, rounds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        directory, cluster, servers = stack.enter_context(_replicas(brokers, replicas))
        port = free_port()
        places = [(server.port, server.ready[0]) for server in servers]
        stack.enter_context(haproxy(program, directory, port, places, policy=ROUND_ROBIN))
        balanced = Server(servers[0].child, port, servers[0].ready, servers[0].topics)
        balanced.load(WARM_UP_REQUESTS * replicas, connections=CONNECTIONS)
        found = [_round(balanced, servers) for _ in range(rounds)]
        missing = len(balanced.taken - asyncio.run(found_in(balanced.topics, cluster.bootstrap_servers)))
    figures = {
        "brokers": brokers,
        "replicas": replicas,
        "req_per_s": [round(each["req_per_s"]) for each in found],
        "p99_ms": [round(each["p99_ms"], 2) for each in found],
        "cpu_us": [round(each["cpu_us"], 1) for each in found],
        "acknowledged": len(balanced.taken),
        "missing": missing,
    }
    console.print(f"{brokers} brokers, {replicas} replicas: {figures['req_per_s']} req/s, {figures['cpu_us']} µs")
    return figures


def _round(balanced: Server, servers: Sequence[Server]) -> dict[str, float]:
    before_s = sum(server.cpu_s for server in servers)
    load, _ = balanced.load(ROUND_REQUESTS, connections=CONNECTIONS)
    used_s = sum(server.cpu_s for server in servers) - before_s
    return {
        "req_per_s": load.count / load.elapsed_s,
        "p99_ms": load.p99_ms,
        "cpu_us": used_s / load.count * 1e6,
    }


def _long(console: Console, deliveries: int) -> dict[str, Any]:
    """Return what one replica costs by part of many deliveries, and what it holds at the end of each."""
    with _replicas(1, 1) as (_, cluster, (server,)):
        server.load(WARM_UP_REQUESTS, connections=CONNECTIONS)
        parts = []
        for number in range(PARTS):
            costs = []
            while server.made < WARM_UP_REQUESTS + deliveries * (number + 1) // PARTS:
                load, cpu_s = server.load(ROUND_REQUESTS, connections=CONNECTIONS)
                costs.append(cpu_s / load.count * 1e6)
            part = {
                "made": server.made,
                "cpu_us": round(statistics.median(costs), 1),
                "rss_mib": round(server.rss[-1][1] / 2**20, 1),
            }
            console.print(f"{part['made']:,} deliveries: {part['cpu_us']} µs, {part['rss_mib']} MiB")
            parts.append(part)
        missing = len(server.taken - asyncio.run(found_in(server.topics, cluster.bootstrap_servers)))
    return {
        "parts": parts,
        "acknowledged": len(server.taken),
        "refused": server.made - len(server.taken),
        "missing": missing,
    }


def table(figures: dict[str, Any]) -> Table:
    """Show the layouts; what many deliveries cost stands below."""
    parts = figures["long"]["parts"]
    first, last = parts[0], parts[-1]
    shown = Table(
        title="replicas behind HAProxy, 64 connections",
        caption=f"one replica: {first['cpu_us']} µs and {first['rss_mib']} MiB after {first['made']:,} deliveries,"
        f" {last['cpu_us']} µs and {last['rss_mib']} MiB after {last['made']:,}; {figures['long']['missing']} missing",
    )
    for name in ("brokers", "replicas", "req/s", "p99 ms", "CPU µs per request", "missing"):
        shown.add_column(name, justify="right")
    for each in figures["layouts"]:
        spreads = (spread(each[name]) for name in ("req_per_s", "p99_ms", "cpu_us"))
        shown.add_row(str(each["brokers"]), str(each["replicas"]), *spreads, str(each["missing"]))
    return shown
