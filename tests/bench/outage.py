"""The ingress without Kafka: responses after fsync, memory with 200,000 spooled events, and the drain."""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from bridge.dev.kafka import create_topics
from tests.bench.ingress import ROUND_REQUESTS, WARM_UP_REQUESTS, found_in
from tests.bench.processes import MIB, Process, rss, rss_peak
from tests.bench.servers import Server, bridge
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

ROUNDS = 5
EVENTS = 200_000
# So many that the outage has been noticed when they are answered.
NOTICED = 200
_HANG_S = 600.0
_LOOK_S = 0.1


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure on a disk; some minutes."""
    # In the checkout: `/tmp` may be memory, where an fsync costs nothing.
    directory = Path(tempfile.mkdtemp(prefix="outage-", dir="build")).absolute()
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    try:
        create_topics(cluster.bootstrap_servers, STANDARD_TOPICS)
        server = bridge(directory, cluster.bootstrap_servers)
        server.start()
        try:
            figures = _measure(console, server, cluster, quick=quick)
        finally:
            server.child.stop()
        missing = len(server.taken - asyncio.run(found_in(server.topics, cluster.bootstrap_servers)))
        return figures | {"acknowledged": len(server.taken), "missing": missing}
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _measure(console: Console, server: Server, cluster: EmbeddedCluster, *, quick: bool) -> dict[str, Any]:
    process = cast("Process", server.child)
    server.load(WARM_UP_REQUESTS)
    cluster.kill_broker(1)
    server.load(NOTICED)
    loads = []
    for _ in range(1 if quick else ROUNDS):
        loads.append(server.load(ROUND_REQUESTS))
        console.print(f"spooling {loads[-1].per_s:6.0f} req/s")
    while (events := _spooled(process)) < EVENTS:
        server.load(ROUND_REQUESTS)
    taken, full = process.metric("drxbridge_spool_bytes"), rss(process)
    console.print(f"{events:,.0f} events wait, {full / MIB:.0f} MiB")
    cluster.start_broker(1)
    elapsed_s = _drained_s(process)
    return {
        "req_per_s": [each.per_s for each in loads],
        "p50_ms": [each.p50_ms for each in loads],
        "p99_ms": [each.p99_ms for each in loads],
        "rss_full_mib": full / MIB,
        "bytes_each": taken / events,
        "drained": events,
        "drained_per_s": events / elapsed_s,
        "rss_peak_mib": rss_peak(process) / MIB,
    }


def _drained_s(process: Process) -> float:
    """Return the time from the broker's first response until the spool is empty."""
    began = time.monotonic()
    while waiting := _spooled(process):
        if time.monotonic() > began + _HANG_S:
            sys.exit(f"{waiting:,.0f} events still wait")
        time.sleep(_LOOK_S)
    return time.monotonic() - began


def _spooled(process: Process) -> float:
    return process.metric("drxbridge_spool_events")
