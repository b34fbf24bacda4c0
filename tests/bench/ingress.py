"""The ingress, a naive service and Benthos (after `make peers`) in turn on one real broker, and nothing lost.

The naive service, the control, checks signatures as the ingress does. All run at once and take turns, so that what else
the machine does meets them alike. CPU per request is the steadiest of the figures.
"""

import asyncio
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from bridge.dev.kafka import create_topics
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from tests.bench.peers import TOPIC, Registry, attacked, benthos, is_built
from tests.bench.processes import MIB, Process, cpu_s, rss
from tests.bench.servers import NAIVE_TOPIC, Server, bridge, naive
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster
from tests.http_server import served

ROUNDS = 5
ROUND_REQUESTS = 15_000
# Imports, connections, caches and the first growth of the heap.
WARM_UP_REQUESTS = 5_000
# The memory goal counts from here.
SOAK_REQUESTS = 200_000
# For an ingress to have read the tails.
WAIT_S = 60.0
_id_in = re.compile(rb"evt_(\d{26})").search


@dataclass
class Candidate:
    """One of those that are compared, and its figures by round."""

    name: str
    server: Server
    figures: dict[str, Any] = field(default_factory=dict)

    def round(self, console: Console, directory: Path) -> None:
        closed = self.server.load(ROUND_REQUESTS)
        seen = {"cpu_us": closed.cpu_us, "req_per_s": closed.per_s, "refused": len(closed.refused)}
        if is_built():
            at_rate = attacked(self.server, directory)
            seen |= {"rate_cpu_us": at_rate.cpu_us, "rate_p50_ms": at_rate.p50_ms, "rate_p99_ms": at_rate.p99_ms}
            seen["refused"] += len(at_rate.refused)
        seen["rss_mib"] = rss(self.server.child) / MIB
        for key, value in seen.items():
            self.figures.setdefault(key, []).append(round(value, 2))
        console.print(f"{self.name:8} " + ", ".join(f"{key} {value:,.1f}" for key, value in seen.items()))


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; about half a minute for each candidate and round, and a minute."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    try:
        servers = cluster.bootstrap_servers
        create_topics(servers, {**STANDARD_TOPICS, NAIVE_TOPIC: 12, TOPIC: 12})
        with served(Registry) as registry:
            peers: dict[str, Any] = {"benthos": partial(benthos, registry=registry)} if is_built() else {}
            describe = {"control": naive, **peers, "bridge": bridge}
            with _started(describe, directory, servers) as candidates:
                empty_s = _until_recalled(candidates[-1].server)
                for each in candidates:
                    each.server.load(WARM_UP_REQUESTS)
                for number in range(1 if quick else ROUNDS):
                    for each in candidates[:: 1 if number % 2 else -1]:
                        each.round(console, directory)
                candidates[-1].figures |= _soak(candidates[-1].server)
        candidates[-1].figures["recall_cpu_us"] = _recall(candidates[-1].server, directory, servers, empty_s)
        for each in candidates:
            pairs = zip(each.figures["cpu_us"], candidates[0].figures["cpu_us"], strict=True)
            each.figures["cpu_ratio"] = round(statistics.median(ours / control for ours, control in pairs), 2)
            each.figures["acknowledged"] = len(each.server.taken)
            each.figures["missing"] = len(each.server.taken - asyncio.run(found_in(each.server.topics, servers)))
        return {"candidates": [{"name": each.name, **each.figures} for each in candidates]}
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _started(
    describe: Mapping[str, Callable[[Path, str], Server]], directory: Path, bootstrap_servers: str
) -> Iterator[list[Candidate]]:
    candidates: list[Candidate] = []
    try:
        for name, each in describe.items():
            (own := directory / name).mkdir()
            candidates.append(Candidate(name, each(own, bootstrap_servers)))
            candidates[-1].server.start()
        yield candidates
    finally:
        for candidate in candidates:
            candidate.server.child.stop()


def _soak(server: Server) -> dict[str, float]:
    """See whether memory stays flat."""
    seen = []
    for _ in range(SOAK_REQUESTS // ROUND_REQUESTS):
        server.load(ROUND_REQUESTS)
        seen.append(rss(server.child) / MIB)
    half = len(seen) // 2
    found = {"soak_rss_mib_first_half": seen[:half], "soak_rss_mib_last_half": seen[half:]}
    return {name: round(statistics.median(each), 1) for name, each in found.items()}


def _recall(server: Server, directory: Path, bootstrap_servers: str, empty_s: float) -> float:
    """See what a start costs for each event that was written before, in µs of CPU."""
    again = bridge(Path(tempfile.mkdtemp(dir=directory)), bootstrap_servers)
    again.start()
    try:
        return round((_until_recalled(again) - empty_s) / len(server.taken) * 1e6, 1)
    finally:
        again.child.stop()


def _until_recalled(server: Server) -> float:
    """Return the CPU seconds of a process from its start until it has read the tails of its topics."""
    process, ends_at = cast("Process", server.child), time.monotonic() + WAIT_S
    while process.metric("drxbridge_dedupe_ready") != 1:
        if time.monotonic() > ends_at:
            sys.exit(f"{process.name} has not read its topics within {WAIT_S} s")
        time.sleep(0.1)
    return cpu_s(process)


async def found_in(topics: Sequence[str], bootstrap_servers: str) -> set[int]:
    """Return the numbers of the deliveries in topics, by the id in the headers or the value of each record."""
    async with open_reader(KafkaConnection(bootstrap_servers), topics, from_beginning=True) as reader:
        places = [dict(each.headers).get("ce_id") or each.value async for each in reader.until_end()]
    return {int(found[1]) for each in places if each and (found := _id_in(each))}
