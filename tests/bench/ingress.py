"""The ingress against naive services, on one real broker, and nothing lost.

The control is the naive service that checks signatures as the ingress does; the one that does not is the floor beneath
both.

Every round gives every candidate a new process and new topics: what earlier rounds have written would be read at the
start, beside the load (`restart` measures that alone). The candidates take turns, so that what else the machine does
meets them alike. CPU per request is the steadiest of the figures.
"""

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka.admin import AdminClient
from rich.console import Console

from bridge.dev.kafka import create_topics
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from bridge.kafka.transport import ConsumedRecord
from tests.bench.load import Load
from tests.bench.servers import NAIVE_TOPIC, Server, bridge, naive
from tests.bench.traffic import number_in, number_of
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

ROUNDS = 3
CONNECTIONS = 64
ROUND_REQUESTS = 15_000
# Imports, connections, caches and the first growth of the heap.
WARM_UP_REQUESTS = 5_000
RATE = 2_000.0
RATE_REQUESTS = 8_000
# The memory goal counts from here.
SOAK_REQUESTS = 200_000
SOAK_STEP_REQUESTS = 15_000
# For a broker to forget a topic, and for an ingress to have read the tails.
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    load: Load
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.load.count / self.load.elapsed_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.load.count * 1e6


@dataclass
class Candidate:
    """One of those that are compared; `recall` is CPU seconds from a start to the end of empty and of full topics."""

    name: str
    describe: Callable[[Path, str], Server]
    closed: list[Round] = field(default_factory=list)
    open: list[Round] = field(default_factory=list)
    rss: list[tuple[int, int]] = field(default_factory=list)
    rss_peak: int = 0
    made: int = 0
    acknowledged: int = 0
    missing: int = 0
    exit_codes: list[int | None] = field(default_factory=list)
    recall: dict[str, float] = field(default_factory=dict)

    def note(self, server: Server, bootstrap_servers: str) -> None:
        """Count what a server that was stopped has acknowledged and not written."""
        found = asyncio.run(found_in(server.topics, bootstrap_servers))
        self.made += server.made
        self.acknowledged += len(server.taken)
        self.missing += len(server.taken - found)
        self.exit_codes.append(server.child.exit_code)


def candidates() -> list[Candidate]:
    """Return the control, the floor, and the ingress, which comes last and is soaked."""
    controls = [Candidate(f"naive, {kind}", partial(naive, kind=kind)) for kind in ("signed", "unsigned")]
    return [*controls, Candidate("bridge", bridge)]


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; about two minutes a round, and two more."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    all_of_them, rounds = candidates(), 1 if quick else ROUNDS
    try:
        for number in range(rounds):
            turns = all_of_them if number % 2 == 0 else all_of_them[::-1]
            for each in turns:
                with _serving(each, directory, cluster.bootstrap_servers) as server:
                    _round(console, each, server, f"{number + 1}/{rounds}")
        _soak(console, all_of_them[-1], directory, cluster.bootstrap_servers)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return result(all_of_them)


@contextmanager
def _serving(candidate: Candidate, directory: Path, bootstrap_servers: str) -> Iterator[Server]:
    """Run a new process of a candidate on new topics; then see what it has written."""
    _renew_topics(bootstrap_servers)
    home = Path(tempfile.mkdtemp(dir=directory))
    server = candidate.describe(home, bootstrap_servers)
    server.start()
    try:
        yield server
        candidate.rss_peak = max(candidate.rss_peak, server.rss_peak)
    finally:
        server.stop()
    candidate.note(server, bootstrap_servers)


def _renew_topics(bootstrap_servers: str) -> None:
    wanted = {**STANDARD_TOPICS, NAIVE_TOPIC: 12}
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    there = admin.list_topics(timeout=WAIT_S).topics.keys() & wanted.keys()
    if there:
        for deleted in admin.delete_topics(list(there)).values():
            deleted.result(WAIT_S)
    create_topics(bootstrap_servers, wanted)


def _round(console: Console, candidate: Candidate, server: Server, name: str) -> None:
    server.load(WARM_UP_REQUESTS, connections=CONNECTIONS)
    last = Round(*server.load(ROUND_REQUESTS, connections=CONNECTIONS))
    candidate.closed.append(last)
    at_rate = Round(*server.load(RATE_REQUESTS, connections=CONNECTIONS, rate=RATE))
    candidate.open.append(at_rate)
    console.print(
        f"round {name} {candidate.name:18} {last.per_s:6.0f} req/s {last.cpu_us:5.0f} µs, "
        f"at {RATE:.0f}/s p99 {at_rate.load.p99_ms:5.1f} ms {at_rate.cpu_us:5.0f} µs"
    )


def _soak(console: Console, candidate: Candidate, directory: Path, bootstrap_servers: str) -> None:
    """See whether memory stays flat, and what a restart costs on what was written meanwhile."""
    with _serving(candidate, directory, bootstrap_servers) as server:
        candidate.recall["empty"] = _until_recalled(server)
        while server.made < SOAK_REQUESTS:
            server.load(min(SOAK_STEP_REQUESTS, SOAK_REQUESTS - server.made), connections=CONNECTIONS)
        candidate.rss = server.rss
    restarted = candidate.describe(Path(tempfile.mkdtemp(dir=directory)), bootstrap_servers)
    restarted.start()
    try:
        candidate.recall["full"] = _until_recalled(restarted)
        candidate.recall["records"] = len(server.taken)
    finally:
        restarted.stop()
    console.print(f"soak of {server.made} requests, {server.rss[-1][1] / 2**20:.0f} MiB; {candidate.recall}")


def _until_recalled(server: Server) -> float:
    """Return the CPU seconds of a process from its start until it has read the tails of its topics."""
    ends_at = time.monotonic() + WAIT_S
    while time.monotonic() < ends_at:
        if server.metric("drxbridge_dedupe_ready") == 1:
            return server.cpu_s
        time.sleep(0.1)
    msg = f"{server.child.name} has not read its topics within {WAIT_S} s"
    raise TimeoutError(msg)


async def found_in(topics: Sequence[str], bootstrap_servers: str) -> set[int]:
    async with open_reader(KafkaConnection(bootstrap_servers), topics, from_beginning=True) as reader:
        return {_number(record) async for record in reader.until_end()}


def _number(record: ConsumedRecord) -> int:
    if record.topic == NAIVE_TOPIC:
        return number_in(record.value or b"")
    return number_of(dict(record.headers)["ce_id"] or b"")


def result(measured: Sequence[Candidate]) -> dict[str, Any]:
    """Everything as plain values; ratios are by round, so that a slow minute of the machine cancels out."""
    control = measured[0]
    return {
        "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
        "connections": CONNECTIONS,
        "candidates": [_figures(each, control) for each in measured],
    }


def _soaked(candidate: Candidate) -> dict[str, float]:
    """Whether memory stays flat, and the CPU time of a record that a restart recalls."""
    rss, recall = [each / 2**20 for _, each in candidate.rss], candidate.recall
    half = len(rss) // 2
    return {
        "soak_rss_mib_first_half": round(statistics.median(rss[:half]), 1),
        "soak_rss_mib_last_half": round(statistics.median(rss[half:]), 1),
        "recall_cpu_us": round((recall["full"] - recall["empty"]) / recall["records"] * 1e6, 1),
    }


def _figures(candidate: Candidate, control: Candidate) -> dict[str, Any]:
    pairs = list(zip(control.closed, candidate.closed, strict=True))
    statuses: dict[str, int] = {}
    for each in (*candidate.closed, *candidate.open):
        for status, count in each.load.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    return {
        "name": candidate.name,
        "req_per_s": [round(each.per_s) for each in candidate.closed],
        "cpu_us": [round(each.cpu_us, 1) for each in candidate.closed],
        # Above 1: better than the control.
        "control_cpu_ratio": round(statistics.median(a.cpu_us / b.cpu_us for a, b in pairs), 3),
        "control_req_ratio": round(statistics.median(b.per_s / a.per_s for a, b in pairs), 3),
        "p50_ms": [round(each.load.p50_ms, 2) for each in candidate.closed],
        "p99_ms": [round(each.load.p99_ms, 2) for each in candidate.closed],
        "rate_p50_ms": [round(each.load.p50_ms, 2) for each in candidate.open],
        "rate_p99_ms": [round(each.load.p99_ms, 2) for each in candidate.open],
        "rate_cpu_us": [round(each.cpu_us, 1) for each in candidate.open],
        "rss_peak_mib": round(candidate.rss_peak / 2**20, 1),
        **(_soaked(candidate) if candidate.rss else {}),
        "statuses": statuses,
        "made": candidate.made,
        "acknowledged": candidate.acknowledged,
        "missing": candidate.missing,
        "exit_codes": candidate.exit_codes,
    }
