"""The ingress against naive services, on one real broker, and nothing lost.

The control is the naive service that checks signatures as the ingress does; the one that does not is the floor beneath
both.

Every round gives every candidate a new process and new topics: what earlier rounds have written would be read at the
start, beside the load (the soak measures that alone). The candidates take turns, so that what else the machine does
meets them alike. CPU per request is the steadiest of the figures.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from confluent_kafka.admin import AdminClient
from rich.console import Console

from bridge.dev.kafka import create_topics
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.reader import open_reader
from tests.bench.load import Load
from tests.bench.processes import MIB, Process, cpu_s, rss_peak
from tests.bench.servers import NAIVE_TOPIC, Server, bridge, naive
from tests.bench.traffic import number_in, number_of
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

ROUNDS = 3
ROUND_REQUESTS = 15_000
# Imports, connections, caches and the first growth of the heap.
WARM_UP_REQUESTS = 5_000
RATE = 2_000.0
RATE_REQUESTS = 8_000
# The memory goal counts from here.
SOAK_REQUESTS = 200_000
# For a broker to forget a topic, and for an ingress to have read the tails.
WAIT_S = 60.0


@dataclass
class Candidate:
    """One of those that are compared: its loads without and with a rate, and what it has acknowledged of all."""

    name: str
    describe: Callable[[Path, str], Server]
    closed: list[Load] = field(default_factory=list)
    open: list[Load] = field(default_factory=list)
    rss_peak: int = 0
    acknowledged: int = 0
    missing: int = 0
    soaked: dict[str, float] = field(default_factory=dict)

    def figures(self, control: "Candidate") -> dict[str, Any]:
        """Everything as plain values; ratios are by round, so that a slow minute of the machine cancels out."""
        pairs = list(zip(control.closed, self.closed, strict=True))
        return {
            "name": self.name,
            "req_per_s": [round(each.per_s) for each in self.closed],
            "cpu_us": [round(each.cpu_us, 1) for each in self.closed],
            # Above 1: better than the control.
            "control_cpu_ratio": round(statistics.median(a.cpu_us / b.cpu_us for a, b in pairs), 3),
            "control_req_ratio": round(statistics.median(b.per_s / a.per_s for a, b in pairs), 3),
            "p50_ms": [round(each.p50_ms, 2) for each in self.closed],
            "p99_ms": [round(each.p99_ms, 2) for each in self.closed],
            "rate_p50_ms": [round(each.p50_ms, 2) for each in self.open],
            "rate_p99_ms": [round(each.p99_ms, 2) for each in self.open],
            "rate_cpu_us": [round(each.cpu_us, 1) for each in self.open],
            "rss_peak_mib": round(self.rss_peak / MIB, 1),
            **self.soaked,
            "acknowledged": self.acknowledged,
            "missing": self.missing,
        }


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; about two minutes a round, and two more."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    controls = [Candidate(f"naive, {kind}", partial(naive, kind=kind)) for kind in ("signed", "unsigned")]
    candidates = [*controls, Candidate("bridge", bridge)]
    try:
        for number in range(1 if quick else ROUNDS):
            for each in candidates if number % 2 == 0 else candidates[::-1]:
                with _serving(each, directory, cluster.bootstrap_servers) as server:
                    _round(console, each, server)
        _soak(console, candidates[-1], directory, cluster.bootstrap_servers)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return {"candidates": [each.figures(candidates[0]) for each in candidates]}


@contextmanager
def _serving(candidate: Candidate, directory: Path, bootstrap_servers: str) -> Iterator[Server]:
    """Run a new process of a candidate on new topics; then see what it has acknowledged and not written."""
    _renew_topics(bootstrap_servers)
    server = candidate.describe(Path(tempfile.mkdtemp(dir=directory)), bootstrap_servers)
    server.start()
    try:
        yield server
        candidate.rss_peak = max(candidate.rss_peak, rss_peak(server.child))
    finally:
        server.child.stop()
    candidate.acknowledged += len(server.taken)
    candidate.missing += len(server.taken - asyncio.run(found_in(server.topics, bootstrap_servers)))


def _renew_topics(bootstrap_servers: str) -> None:
    wanted = {**STANDARD_TOPICS, NAIVE_TOPIC: 12}
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    there = admin.list_topics(timeout=WAIT_S).topics.keys() & wanted.keys()
    if there:
        for deleted in admin.delete_topics(list(there)).values():
            deleted.result(WAIT_S)
    create_topics(bootstrap_servers, wanted)


def _round(console: Console, candidate: Candidate, server: Server) -> None:
    server.load(WARM_UP_REQUESTS)
    last = server.load(ROUND_REQUESTS)
    at_rate = server.load(RATE_REQUESTS, rate=RATE)
    candidate.closed.append(last)
    candidate.open.append(at_rate)
    console.print(
        f"{candidate.name:18} {last.per_s:6.0f} req/s {last.cpu_us:5.0f} µs, "
        f"at {RATE:.0f}/s p99 {at_rate.p99_ms:5.1f} ms {at_rate.cpu_us:5.0f} µs"
    )


def _soak(console: Console, candidate: Candidate, directory: Path, bootstrap_servers: str) -> None:
    """See whether memory stays flat, and what a restart costs on what was written meanwhile."""
    with _serving(candidate, directory, bootstrap_servers) as server:
        empty_s = _until_recalled(server)
        while server.made < SOAK_REQUESTS:
            server.load(min(ROUND_REQUESTS, SOAK_REQUESTS - server.made))
    restarted = candidate.describe(Path(tempfile.mkdtemp(dir=directory)), bootstrap_servers)
    restarted.start()
    try:
        recalled_s = _until_recalled(restarted) - empty_s
    finally:
        restarted.child.stop()
    half = len(server.rss) // 2
    candidate.soaked = {
        "soak_rss_mib_first_half": round(statistics.median(server.rss[:half]) / MIB, 1),
        "soak_rss_mib_last_half": round(statistics.median(server.rss[half:]) / MIB, 1),
        "recall_cpu_us": round(recalled_s / len(server.taken) * 1e6, 1),
    }
    console.print(f"soak of {server.made} requests: {candidate.soaked}")


def _until_recalled(server: Server) -> float:
    """Return the CPU seconds of a process from its start until it has read the tails of its topics."""
    process, ends_at = cast("Process", server.child), time.monotonic() + WAIT_S
    while process.metric("drxbridge_dedupe_ready") != 1:
        if time.monotonic() > ends_at:
            sys.exit(f"{process.name} has not read its topics within {WAIT_S} s")
        time.sleep(0.1)
    return cpu_s(process)


async def found_in(topics: Sequence[str], bootstrap_servers: str) -> set[int]:
    async with open_reader(KafkaConnection(bootstrap_servers), topics, from_beginning=True) as reader:
        return {_number(record) async for record in reader.until_end()}


def _number(record: ConsumedRecord) -> int:
    if record.topic == NAIVE_TOPIC:
        return number_in(record.value or b"")
    return number_of(dict(record.headers)["ce_id"] or b"")
