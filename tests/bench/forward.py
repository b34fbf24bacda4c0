"""`forward` from topic to settled records, against an endpoint that takes 10 ms for each."""

from __future__ import annotations

import base64
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge.dev.ports import HOST, free_port, is_free
from bridge.dev.processes import Child
from tests.bench.consuming import Place, consumer, memory, pace, servers
from tests.bench.report import spread
from tests.installed import ROOT
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

NAME = "forward"
TOPIC = "drx.prescriptions.v1"
ANSWER_S = 0.01
ROUNDS = 3
# Lanes to the records of a round, which take some ten seconds.
RECORDS = {8: 7_000, 64: 30_000}
# What the goals say: events a second.
GOALS = {8: 500, 64: 2_500}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its lanes, and what was measured."""

    lanes: int
    per_s: float
    cpu_us: float
    rss_peak_mib: float


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; two minutes."""
    runs = []
    with servers({TOPIC: 12}) as place:
        fill(place.bootstrap_servers, Lives.of_records(max(RECORDS.values())).records(TOPIC))
        (place.directory / "secrets").mkdir()
        (place.directory / "secrets" / "current").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}")
        port = free_port()
        endpoint = Child(
            "endpoint",
            command=[sys.executable, "-m", "tests.bench.endpoint", str(port), str(ANSWER_S)],
            cwd=ROOT,
            log=place.directory / "endpoint.log",
        )
        endpoint.start()
        try:
            endpoint.wait_until(lambda: not is_free(port), timeout_s=30.0)
            for number in range(1 if quick else ROUNDS):
                for lanes in RECORDS:
                    found = _measure(place, port, lanes, number)
                    console.print(f"{lanes} lanes {found.per_s:,.0f} events/s {found.cpu_us:.0f} µs")
                    runs.append(found)
        finally:
            endpoint.stop(5.0)
    return {
        str(lanes): {
            "events_per_s": [round(each.per_s) for each in runs if each.lanes == lanes],
            "cpu_us": [round(each.cpu_us, 1) for each in runs if each.lanes == lanes],
            "rss_peak_mib": max(each.rss_peak_mib for each in runs if each.lanes == lanes),
        }
        for lanes in RECORDS
    }


def _measure(place: Place, port: int, lanes: int, number: int) -> Run:
    instance = f"lanes-{lanes}-{number}"
    settings = {
        "URL": f"http://{HOST}:{port}/desk",
        "ALLOW_HTTP": "true",
        "SECRETS_DIR": str(place.directory / "secrets"),
        "TOPICS": TOPIC,
        "INSTANCE": instance,
        "LANES": str(lanes),
    }
    with fresh_database(place.dsn) as dsn:
        ours = consumer(
            place.directory,
            NAME,
            bootstrap_servers=place.bootstrap_servers,
            dsn=dsn,
            group=f"{NAME}.{instance}",
            settings={f"CONSUMER_FORWARD__{name}": value for name, value in settings.items()},
        )
        ours.start()
        try:
            samples = ours.watch_applied(RECORDS[lanes])
        finally:
            ours.child.kill()
    per_s, cpu_us = pace(samples)
    return Run(lanes, per_s, cpu_us, memory(samples)["rss_peak_mib"])


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds."""
    shown = Table(title=f"forward, an endpoint of {ANSWER_S * 1000:.0f} ms, 12 partitions, one broker, one process")
    for column in ("", *(f"{lanes} lanes" for lanes in RECORDS)):
        shown.add_column(column)
    of = [(figures[str(lanes)], GOALS[lanes]) for lanes in RECORDS]
    shown.add_row("events/s", *(f"{spread(each['events_per_s'])} (goal >= {goal:,})" for each, goal in of))
    shown.add_row("CPU µs per event", *(spread(each["cpu_us"]) for each, _ in of))
    shown.add_row("peak RSS MiB", *(str(each["rss_peak_mib"]) for each, _ in of))
    return shown
