"""`archive` from topic to published files, into a directory of this disk."""

from typing import Any

from rich.console import Console

from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from tests.bench.consuming import ROUNDS, Pace, consuming, figures, filled, measured
from tests.topic_filler import Lives

RECORDS = 200_000
# More than a window holds, so that batches stay full.
SPARE = 50_000


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    paces: list[Pace] = []
    with filled(Lives.of_records(RECORDS + SPARE, one_day=True)) as place:
        for number in range(1 if quick else ROUNDS):
            settings = {
                "ARCHIVE__TOPICS": PRESCRIPTIONS_TOPIC,
                "ARCHIVE__ROOT": str(place.directory / f"lake-{number}"),
                "ARCHIVE__BATCH_RECORDS": "5000",
                "ARCHIVE__SCHEMA": f"n{number}",
            }
            with consuming(place, "archive", **settings) as (process, _):
                paces.append(measured(process, RECORDS))
            console.print(f"{paces[-1].per_s:,.0f} events/s {paces[-1].cpu_us:.0f} µs")
    return figures(paces)
