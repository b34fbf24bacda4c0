"""The ingress against the control on one real broker: throughput, latency, CPU, memory, and nothing lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bridge.dev.kafka import create_topics
from bridge.kafka.connection import Connection
from bridge.kafka.reader import open_reader
from bridge.kafka.transport import ConsumedRecord
from tests.bench.load import Load
from tests.bench.servers import NAIVE_TOPIC, Server, bridge, naive
from tests.bench.traffic import number_in, number_of
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

ROUNDS = 5
CONNECTIONS = 64
ROUND_REQUESTS = 15_000
# Imports, connections, caches and the first growth of the heap.
WARM_UP_REQUESTS = 5_000
RATE = 2_000.0
RATE_ROUNDS = 3
RATE_REQUESTS = 16_000
# The memory goal counts from here.
SOAK_REQUESTS = 200_000
SOAK_STEP_REQUESTS = 15_000


@dataclass(frozen=True, slots=True)
class Round:
    """One load of one candidate."""

    load: Load
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return self.load.count / self.load.elapsed_s

    @property
    def cpu_us(self) -> float:
        """CPU time of the server for one request, in microseconds."""
        return self.cpu_s / self.load.count * 1e6


@dataclass
class Candidate:
    """One of the two, with all that was measured of it."""

    server: Server
    closed: list[Round] = field(default_factory=list)
    open: list[Round] = field(default_factory=list)
    rss_peak: int = 0
    found: int = 0
    missing: int = 0
    exit_code: int | None = None

    def run(self, into: list[Round], count: int, *, rate: float = 0.0) -> None:
        """Load it once more."""
        into.append(Round(*self.server.load(count, connections=CONNECTIONS, rate=rate)))


def run(console: Console, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure both; a few minutes."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    try:
        create_topics(cluster.bootstrap_servers, {**STANDARD_TOPICS, NAIVE_TOPIC: 12})
        pair = [
            Candidate(naive(directory, cluster.bootstrap_servers)),
            Candidate(bridge(directory, cluster.bootstrap_servers)),
        ]
        try:
            for each in pair:
                each.server.start()
            _measure(console, pair, rounds=rounds)
        finally:
            for each in pair:
                each.exit_code = each.server.stop()
        for each in pair:
            console.print(f"counting what {each.server.child.name} wrote")
            found = asyncio.run(found_in(each.server.topics, cluster.bootstrap_servers))
            each.found, each.missing = len(found), len(each.server.taken - found)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return result(*pair)


def _measure(console: Console, pair: list[Candidate], *, rounds: int) -> None:
    """Take turns, so that what else the machine does meets both alike."""
    for each in pair:
        each.run([], WARM_UP_REQUESTS)
    for number in range(rounds):
        for each in pair:
            each.run(each.closed, ROUND_REQUESTS)
            last = each.closed[-1]
            console.print(
                f"round {number + 1}/{rounds} {each.server.child.name:6} {last.per_s:6.0f} req/s {last.cpu_us:5.0f} µs"
            )
    for number in range(min(rounds, RATE_ROUNDS)):
        for each in pair:
            each.run(each.open, RATE_REQUESTS, rate=RATE)
            console.print(
                f"at {RATE:.0f}/s {number + 1} {each.server.child.name:6} p99 {each.open[-1].load.p99_ms:6.1f} ms"
            )
    ours = pair[-1].server
    while ours.made < SOAK_REQUESTS:
        pair[-1].run([], min(SOAK_STEP_REQUESTS, SOAK_REQUESTS - ours.made))
        console.print(f"{ours.made} requests, {ours.rss[-1][1] / 2**20:.0f} MiB")
    for each in pair:
        each.rss_peak = each.server.rss_peak


async def found_in(topics: Sequence[str], bootstrap_servers: str) -> set[int]:
    """Return the numbers of the deliveries that are in some topics."""
    async with open_reader(Connection(bootstrap_servers), topics, from_beginning=True) as reader:
        return {_number(record) async for record in reader.until_end()}


def _number(record: ConsumedRecord) -> int:
    if record.topic == NAIVE_TOPIC:
        return number_in(record.value or b"")
    return number_of(dict(record.headers)["ce_id"] or b"")


def result(control: Candidate, ours: Candidate) -> dict[str, Any]:
    """Everything as plain values; ratios are pairwise, so that a slow minute of the machine cancels out."""
    pairs = list(zip(control.closed, ours.closed, strict=True))
    return {
        "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
        "connections": CONNECTIONS,
        "naive": _figures(control),
        "bridge": _figures(ours),
        # Above 1: ours is the better one.
        "ratio_req_per_s": statistics.median(b.per_s / a.per_s for a, b in pairs),
        "ratio_cpu": statistics.median(a.cpu_us / b.cpu_us for a, b in pairs),
    }


def _figures(candidate: Candidate) -> dict[str, Any]:
    rss = candidate.server.rss
    half = candidate.server.made / 2
    early = [each for made, each in rss if made <= half]
    late = [each for made, each in rss if made > half]
    statuses: dict[str, int] = {}
    for each in (*candidate.closed, *candidate.open):
        for status, count in each.load.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    return {
        "req_per_s": [round(each.per_s) for each in candidate.closed],
        "cpu_us": [round(each.cpu_us, 1) for each in candidate.closed],
        "p50_ms": [round(each.load.p50_ms, 2) for each in candidate.closed],
        "p99_ms": [round(each.load.p99_ms, 2) for each in candidate.closed],
        "rate_p50_ms": [round(each.load.p50_ms, 2) for each in candidate.open],
        "rate_p99_ms": [round(each.load.p99_ms, 2) for each in candidate.open],
        "rate_cpu_us": [round(each.cpu_us, 1) for each in candidate.open],
        "rss_peak_mib": round(candidate.rss_peak / 2**20, 1),
        "rss_mib": [[made, round(each / 2**20, 1)] for made, each in rss],
        "rss_first_half_mib": round(statistics.median(early) / 2**20, 1),
        "rss_last_half_mib": round(statistics.median(late) / 2**20, 1),
        "statuses": statuses,
        "made": candidate.server.made,
        "acknowledged": len(candidate.server.taken),
        "found": candidate.found,
        "missing": candidate.missing,
        "exit_code": candidate.exit_code,
    }
