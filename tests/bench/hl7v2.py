"""`hl7v2` from topic to settled records, against a receiver on loopback that acknowledges at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.consuming import Place, consumer, memory, pace, servers
from tests.bench.report import spread
from tests.faults.away import HOST
from tests.faults.messaging import Receiver
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

NAME = "hl7v2"
TOPIC = "drx.prescriptions.v1"
ROUNDS = 3
# Connections to the records of a round, which take some ten seconds; nearly every record is a message.
RECORDS = {1: 6_000, 8: 15_000}
# What the goals say: messages a second.
GOALS = {1: 400, 8: 1_500}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its connections, and what was measured."""

    connections: int
    per_s: float
    cpu_us: float
    rss_peak_mib: float


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; two minutes."""
    runs = []
    with servers({TOPIC: 12}) as place:
        fill(place.bootstrap_servers, Lives.of_records(max(RECORDS.values())).records(TOPIC))
        for number in range(1 if quick else ROUNDS):
            for connections in RECORDS:
                found = _measure(place, connections, number)
                console.print(f"{connections} connections {found.per_s:,.0f} events/s {found.cpu_us:.0f} µs")
                runs.append(found)
    return {
        str(connections): {
            "events_per_s": [round(each.per_s) for each in runs if each.connections == connections],
            "cpu_us": [round(each.cpu_us, 1) for each in runs if each.connections == connections],
            "rss_peak_mib": max(each.rss_peak_mib for each in runs if each.connections == connections),
        }
        for connections in RECORDS
    }


def _measure(place: Place, connections: int, number: int) -> Run:
    instance = f"c{connections}-{number}"
    with fresh_database(place.dsn) as dsn, Receiver() as receiver:
        settings = {
            "HOST": HOST,
            "PORT": str(receiver.port),
            "ALLOW_PLAINTEXT": "true",
            "TOPICS": TOPIC,
            "INSTANCE": instance,
            "CONNECTIONS": str(connections),
        }
        ours = consumer(
            place.directory,
            NAME,
            bootstrap_servers=place.bootstrap_servers,
            dsn=dsn,
            group=f"{NAME}.{instance}",
            settings={
                "CONSUMER_POSTGRES__POOL_SIZE": str(connections + 8),
                **{f"CONSUMER_HL7V2__{name}": value for name, value in settings.items()},
            },
        )
        ours.start()
        try:
            samples = ours.watch_applied(RECORDS[connections])
        finally:
            ours.child.kill()
    per_s, cpu_us = pace(samples)
    return Run(connections, per_s, cpu_us, memory(samples)["rss_peak_mib"])


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds."""
    shown = Table(title="hl7v2, a receiver on loopback, 12 partitions, one broker, one process")
    for column in ("", *(f"{connections} connections" for connections in RECORDS)):
        shown.add_column(column)
    of = [(figures[str(connections)], GOALS[connections]) for connections in RECORDS]
    shown.add_row("events/s", *(f"{spread(each['events_per_s'])} (goal >= {goal:,})" for each, goal in of))
    shown.add_row("CPU µs per event", *(spread(each["cpu_us"]) for each, _ in of))
    shown.add_row("peak RSS MiB", *(str(each["rss_peak_mib"]) for each, _ in of))
    return shown
