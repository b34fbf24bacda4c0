"""`archive` from topic to published files, into a directory of this disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.consuming import Place, consumer, memory, pace, servers
from tests.bench.report import spread
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

NAME = "archive"
TOPIC = "drx.prescriptions.v1"
ROUNDS = 3
# Some ten seconds.
RECORDS = 200_000
# What the goals say.
GOAL_PER_S, GOAL_MIB = 20_000, 400


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what was measured."""

    per_s: float
    cpu_us: float
    rss_peak_mib: float
    bytes_per_event: float


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; two minutes."""
    runs = []
    with servers({TOPIC: 12}) as place:
        count = fill(place.bootstrap_servers, Lives.of_records(RECORDS).records(TOPIC))
        for _ in range(1 if quick else ROUNDS):
            found = _measure(place, count)
            console.print(f"{found.per_s:,.0f} events/s {found.cpu_us:.0f} µs {found.rss_peak_mib} MiB")
            runs.append(found)
    return {
        "events_per_s": [round(each.per_s) for each in runs],
        "cpu_us": [round(each.cpu_us, 1) for each in runs],
        "rss_peak_mib": [each.rss_peak_mib for each in runs],
        "bytes_per_event": [round(each.bytes_per_event, 1) for each in runs],
    }


def _measure(place: Place, count: int) -> Run:
    lake = place.directory / "lake"
    with fresh_database(place.dsn) as dsn:
        ours = consumer(
            place.directory,
            NAME,
            bootstrap_servers=place.bootstrap_servers,
            dsn=dsn,
            settings={
                "CONSUMER_ARCHIVE__ROOT": str(lake),
                "CONSUMER_ARCHIVE__TOPICS": TOPIC,
                # The last batches are not full.
                "CONSUMER_ARCHIVE__WAIT_S": "1",
            },
        )
        ours.start()
        try:
            samples = ours.watch(dsn, count)
            size = _size(lake)
        finally:
            ours.child.kill()
            shutil.rmtree(lake)
    per_s, cpu_us = pace(samples)
    return Run(per_s, cpu_us, memory(samples)["rss_peak_mib"], size / count)


def _size(lake: Path) -> int:
    """Bytes of all files, published or staged."""
    return sum(path.stat().st_size for path in lake.rglob("*.parquet"))


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds."""
    shown = Table(title="archive, a directory, 12 partitions, one broker, one process")
    for column in ("", "batches of 5,000"):
        shown.add_column(column)
    shown.add_row("events/s", f"{spread(figures['events_per_s'])} (goal >= {GOAL_PER_S:,})")
    shown.add_row("CPU µs per event", spread(figures["cpu_us"]))
    shown.add_row("peak RSS MiB", f"{max(figures['rss_peak_mib'])} (goal <= {GOAL_MIB})")
    shown.add_row("bytes per event", spread(figures["bytes_per_event"]))
    return shown
