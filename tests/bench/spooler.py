"""The process that the spool's bench measures, with all of the ingress loaded: fill a spool, or recover and drain it.

Run as `python -m tests.bench.spooler fill|drain DIRECTORY COUNT`; prints one JSON line.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop
from prometheus_client import CollectorRegistry

import bridge.app  # noqa: F401 - its memory is part of what is measured
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.segment import Entry
from bridge.spool.store import Spool

APPENDERS = 64
PAYLOAD_BYTES = 1_500
PARTITIONS = 12
# As many of a partition at once as a batch of the producer takes.
PEEK = 500
PEEK_BYTES = 1_048_576
CAPACITY_BYTES = 1_073_741_824


def entry(number: int) -> Entry:
    """Return a payload that no disk and no cipher finds easy."""
    return Entry(
        number, time.time_ns() // 1_000_000, ("drx.prescriptions.v1", number % PARTITIONS), os.urandom(PAYLOAD_BYTES)
    )


def spool(directory: Path) -> Spool:
    """Return it as the ingress has it."""
    return Spool(
        directory=directory,
        key_dir=directory / "keys",
        capacity_bytes=CAPACITY_BYTES,
        metrics=IngressMetrics(CollectorRegistry()),
    )


async def fill(directory: Path, count: int) -> dict[str, Any]:
    """Append from many places at once, each waiting for its own."""
    store = spool(directory)
    await store.open(Recovered())
    durations: list[float] = []
    numbers = iter(range(count))

    async def appender() -> None:
        for number in numbers:
            began = time.perf_counter()
            await store.append([entry(number)])
            durations.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(appender() for _ in range(APPENDERS)))
    elapsed_s = time.perf_counter() - began
    rss = psutil.Process().memory_info().rss
    await store.close()
    cuts = statistics.quantiles(durations, n=1000)
    return {
        "appends_per_s": count / elapsed_s,
        "p50_ms": cuts[499] * 1000,
        "p99_ms": cuts[989] * 1000,
        "p999_ms": cuts[998] * 1000,
        "worst_ms": max(durations) * 1000,
        "rss_full_mib": rss / 2**20,
        **usage(),
    }


class Recovered:
    """Counts what the spool holds at its start."""

    count = 0

    def recovered(self, _entry: Entry) -> None:
        """Count."""
        self.count += 1

    def passed_over(self) -> None:
        """Never: nothing is damaged."""


async def drain(directory: Path, count: int) -> dict[str, Any]:
    """Recover everything, then take it out of all partitions at once."""
    store = spool(directory)
    recovered = Recovered()

    began = time.perf_counter()
    await store.open(recovered)
    recovered_s = time.perf_counter() - began
    rss = psutil.Process().memory_info().rss

    async def drain_one(partition: int) -> int:
        taken = 0
        place = ("drx.prescriptions.v1", partition)
        while entries := await store.peek(place, most=PEEK, most_bytes=PEEK_BYTES):
            store.acknowledge(place, len(entries))
            taken += len(entries)
        return taken

    began = time.perf_counter()
    taken = sum(await asyncio.gather(*map(drain_one, range(PARTITIONS))))
    elapsed_s = time.perf_counter() - began
    await store.close()
    return {
        "recovered": recovered.count,
        "drained": taken,
        "missing": count - taken,
        "recover_s": recovered_s,
        "rss_recovered_mib": rss / 2**20,
        "drained_per_s": taken / elapsed_s,
        **usage(),
    }


def usage() -> dict[str, float]:
    """Return what the process took."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"rss_peak_mib": used.ru_maxrss / 1024, "cpu_s": used.ru_utime + used.ru_stime}


def main(verb: str, directory: str, count: str) -> None:
    """Run one of the two."""
    work = {"fill": fill, "drain": drain}[verb]
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(work(Path(directory), int(count)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
