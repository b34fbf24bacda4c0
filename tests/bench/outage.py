"""The whole ingress while Kafka is away: answers after fsync, memory with 200,000 spooled, and the drain."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bridge.dev.kafka import create_topics
from tests.bench.ingress import CONNECTIONS, WARM_UP_REQUESTS, found_in
from tests.bench.load import Load
from tests.bench.servers import Server, bridge
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

ROUNDS = 5
ROUND_REQUESTS = 15_000
EVENTS = 200_000
# So many that the outage has been noticed when they are answered.
NOTICED = 200
_HANG_S = 600.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Drain:
    """How a spool was emptied, from the broker's answer to the last event that had waited."""

    events: int
    elapsed_s: float
    rss: int


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
            exit_code = server.stop()
        missing = len(server.taken - asyncio.run(found_in(server.topics, cluster.bootstrap_servers)))
        return figures | {"acknowledged": len(server.taken), "missing": missing, "exit_code": exit_code}
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _measure(console: Console, server: Server, cluster: EmbeddedCluster, *, quick: bool) -> dict[str, Any]:
    server.load(WARM_UP_REQUESTS, connections=CONNECTIONS)
    loads: list[Load] = []
    with _without(cluster, server):
        for number in range(1 if quick else ROUNDS):
            loads.append(server.load(ROUND_REQUESTS, connections=CONNECTIONS)[0])
            console.print(f"spooling, round {number + 1} {loads[-1].count / loads[-1].elapsed_s:6.0f} req/s")
        while _spooled(server) < EVENTS:
            server.load(ROUND_REQUESTS, connections=CONNECTIONS)
        full = psutil.Process(server.child.pid).memory_info().rss
        events, taken = _spooled(server), server.metric("drxbridge_spool_bytes") or 0.0
        console.print(f"{events:,.0f} events wait, {full / 2**20:.0f} MiB")
    drain = _drained(server)
    console.print(f"{drain.events:,} drained in {drain.elapsed_s:.1f} s, {drain.rss / 2**20:.0f} MiB")
    return {
        "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
        "connections": CONNECTIONS,
        "req_per_s": [each.count / each.elapsed_s for each in loads],
        "p50_ms": [each.p50_ms for each in loads],
        "p99_ms": [each.p99_ms for each in loads],
        "statuses": _statuses(loads),
        "rss_full_mib": full / 2**20,
        "bytes_each": taken / events,
        "drain": {"events": drain.events, "elapsed_s": drain.elapsed_s, "rss_mib": drain.rss / 2**20},
        "rss_peak_mib": server.rss_peak / 2**20,
    }


@contextmanager
def _without(cluster: EmbeddedCluster, server: Server) -> Iterator[None]:
    """Have no broker for the block; it begins when that has been noticed."""
    cluster.kill_broker(1)
    server.load(NOTICED, connections=CONNECTIONS)
    yield
    cluster.start_broker(1)


def _drained(server: Server) -> Drain:
    """Watch the spool until it is empty."""
    process, began = psutil.Process(server.child.pid), time.monotonic()
    waiting = events = int(_spooled(server))
    rss = 0
    while waiting:
        if time.monotonic() > began + _HANG_S:
            sys.exit(f"{waiting} events still wait")
        time.sleep(_LOOK_S)
        rss = max(rss, process.memory_info().rss)
        waiting = int(_spooled(server))
    return Drain(events, time.monotonic() - began, rss)


def _spooled(server: Server) -> float:
    return server.metric("drxbridge_spool_events") or 0.0


def _statuses(loads: list[Load]) -> dict[str, int]:
    return {
        status: sum(each.statuses.get(status, 0) for each in loads)
        for status in sorted({status for each in loads for status in each.statuses})
    }
