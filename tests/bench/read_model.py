"""The read model from topic to committed rows, on one broker and one database."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.consuming import Place, Sample, consumer, memory, pace, servers
from tests.bench.report import spread
from tests.bench.sizes import log_bytes, table_bytes, wal_bytes
from tests.cluster import STANDARD_TOPICS
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

NAME = "read_model"
TOPIC = "drx.prescriptions.v1"
ROUNDS = 3
# The memory goal counts from here.
SOAK_RECORDS = 1_000_000
QUICK_RECORDS = 150_000
ROUND_RECORDS = 100_000
# What we set out for: events a second, and the memory of a process.
GOALS = {"events_per_s": 10_000, "rss_mib": 200}
# The last half of the records may hold this much more than the first: the allocator's noise.
FLAT_MIB = 10.0


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure rounds on the same records, then one run over the whole topic; about five minutes."""
    with servers(STANDARD_TOPICS) as place:
        soak_records = QUICK_RECORDS if quick else SOAK_RECORDS
        written = fill(place.bootstrap_servers, Lives.of_records(soak_records).records(TOPIC))
        console.print(f"{written:,} records in the topic")
        numbers = itertools.count(1)
        paces = []
        for _ in range(1 if quick else ROUNDS):
            paces.append(pace(_samples(place, next(numbers), ROUND_RECORDS)[0]))
            console.print(f"{paces[-1].per_s:7,.0f} events/s {paces[-1].cpu_us:5.0f} µs")
        samples, bytes_each = _samples(place, next(numbers), soak_records)
        whole = pace(samples)
        console.print(f"{samples[-1].settled:,} records {whole.per_s:,.0f} events/s")
        return {
            "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
            "events_per_s": [round(each.per_s) for each in paces],
            "cpu_us": [round(each.cpu_us, 1) for each in paces],
            "soak": {
                "records": samples[-1].settled,
                "events_per_s": round(whole.per_s),
                "cpu_us": round(whole.cpu_us, 1),
                "bytes_each": bytes_each,
                **memory(samples),
            },
            "log_bytes": round(log_bytes(place.directory / "kafka", TOPIC) / written),
        }


def _samples(place: Place, number: int, records: int) -> tuple[list[Sample], dict[str, int]]:
    """Run it until `records` are settled; also what an event takes in the database."""
    # A schema is a read model of its own, with its own group.
    schema = f"bench_{number}"
    with fresh_database(place.dsn) as dsn:
        ours = consumer(
            place.directory,
            NAME,
            bootstrap_servers=place.bootstrap_servers,
            dsn=dsn,
            group=f"{NAME}.{schema}",
            settings={"CONSUMER_READ_MODEL__SCHEMA": schema},
        )
        before = wal_bytes(dsn)
        ours.start()
        try:
            samples = ours.watch(dsn, records)
        finally:
            ours.child.kill()
        written = wal_bytes(dsn) - before
        return samples, {"written ahead": round(written / samples[-1].settled), **table_bytes(dsn, schema)}


def table(figures: dict[str, Any]) -> Table:
    shown = Table("", "read model", title="read model, 12 partitions, one broker, one database, one process")
    for row in _rows(figures):
        shown.add_row(*row)
    return shown


def _rows(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    soak = figures["soak"]
    early, late = soak["rss_first_half_mib"], soak["rss_last_half_mib"]
    yield "events/s", spread(figures["events_per_s"])
    yield "CPU µs per event", spread(figures["cpu_us"])
    goal = f"{soak['events_per_s']:,} (goal >= {GOALS['events_per_s']:,})"
    yield f"{soak['records']:,} records: events/s", goal
    yield "peak RSS MiB", f"{soak['rss_peak_mib']:,} (goal <= {GOALS['rss_mib']})"
    flat = "flat" if late - early <= FLAT_MIB else "growing"
    yield "RSS MiB, median of first and last half", f"{early}, {late}: {flat}"
    yield "bytes of an event in the log", f"{figures['log_bytes']:,}"
    taken = ", ".join(f"{name} {taken:,}" for name, taken in soak["bytes_each"].items())
    yield "bytes of an event in PostgreSQL", taken
