"""`workflow` from topic to started workflows, against Temporal's test server on loopback."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.consuming import Place, consumer, memory, pace, servers
from tests.bench.report import spread
from tests.postgres import fresh_database
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives, fill

NAME = "workflow"
TOPIC = "drx.prescriptions.v1"
ROUNDS = 3
RECORDS = 12_000
# What the goal says: starts a second.
GOAL = 300
# Each event starts a workflow of its own: what is measured is the starts.
RULES = """
task_queue = "bench"
[[rule]]
types = ["*"]
do = "start"
workflow = "Bench"
id = "{source}:{event_id}"
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured in one run."""

    per_s: float
    cpu_us: float
    rss_peak_mib: float


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; two minutes."""
    runs = []
    with servers({TOPIC: 12}) as place:
        fill(place.bootstrap_servers, Lives.of_records(RECORDS).records(TOPIC))
        (place.directory / "rules.toml").write_text(RULES)
        for number in range(1 if quick else ROUNDS):
            found = _measure(place, number)
            console.print(f"{found.per_s:,.0f} starts/s {found.cpu_us:.0f} µs")
            runs.append(found)
    return {
        "starts_per_s": [round(each.per_s) for each in runs],
        "cpu_us": [round(each.cpu_us, 1) for each in runs],
        "rss_peak_mib": max(each.rss_peak_mib for each in runs),
    }


def _measure(place: Place, number: int) -> Run:
    instance = f"bench-{number}"
    with (
        fresh_database(place.dsn) as dsn,
        tempfile.TemporaryDirectory() as directory,
        TemporalServer(Path(directory), options=("-Xmx1g",)) as server,
    ):
        settings = {
            "ADDRESS": server.address,
            "ALLOW_PLAINTEXT": "true",
            "NAMESPACE": instance,
            "INSTANCE": instance,
            "TOPICS": TOPIC,
            "RULES": str(place.directory / "rules.toml"),
            "TIMERS": "off",
        }
        ours = consumer(
            place.directory,
            NAME,
            bootstrap_servers=place.bootstrap_servers,
            dsn=dsn,
            group=f"{NAME}.{instance}",
            settings={f"CONSUMER_WORKFLOW__{name}": value for name, value in settings.items()},
        )
        ours.start()
        try:
            samples = ours.watch_applied(RECORDS)
        finally:
            ours.child.kill()
    per_s, cpu_us = pace(samples)
    return Run(per_s, cpu_us, memory(samples)["rss_peak_mib"])


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds."""
    shown = Table(title="workflow, a Temporal test server on loopback, 12 partitions, one broker, one process")
    shown.add_column("")
    shown.add_column("8 lanes")
    shown.add_row("starts/s", f"{spread(figures['starts_per_s'])} (goal >= {GOAL:,})")
    shown.add_row("CPU µs per event", spread(figures["cpu_us"]))
    shown.add_row("peak RSS MiB", str(figures["rss_peak_mib"]))
    return shown
