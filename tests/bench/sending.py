"""A consumer that tells a peer of each record, from topic to applied records: its rounds and their figures.

What is varied is how much it sends at one time: lanes, connections, or records of a file.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tests.bench.consuming import Place, consumer, memory, pace
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

TOPIC = "drx.prescriptions.v1"
TOPICS = {TOPIC: 12}
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sending:
    """What is measured: records of a round by how many go at one time, and `spare` ones so that batches stay full."""

    name: str
    at_once: str
    records: Mapping[int, int]
    instance: str = "INSTANCE"
    spare: int = 0

    def run(
        self,
        console: Console,
        place: Place,
        settings: Callable[[int], AbstractContextManager[Mapping[str, str]]],
        *,
        quick: bool,
    ) -> dict[str, Any]:
        """Measure all; `settings` gives the variables of a run, without their prefix, from the number at one time."""
        lives = Lives.of_records(max(self.records.values()) + self.spare, one_day=True)
        fill(place.bootstrap_servers, lives.records(TOPIC))
        runs: dict[int, list[_Run]] = {at_once: [] for at_once in self.records}
        for number in range(1 if quick else ROUNDS):
            for at_once, found in runs.items():
                with settings(at_once) as own:
                    found.append(self._measure(place, at_once, own, instance=f"of{at_once}n{number}"))
                console.print(f"{at_once} {self.at_once} {found[-1].per_s:,.0f} events/s {found[-1].cpu_us:.0f} µs")
        return {
            str(at_once): {
                "events_per_s": [round(each.per_s) for each in found],
                "cpu_us": [round(each.cpu_us, 1) for each in found],
                "rss_peak_mib": max(each.rss_peak_mib for each in found),
            }
            for at_once, found in runs.items()
        }

    def _measure(self, place: Place, at_once: int, settings: Mapping[str, str], *, instance: str) -> "_Run":
        variables = {
            f"{self.name.upper()}__TOPICS": TOPIC,
            f"{self.name.upper()}__{self.instance}": instance,
            **settings,
        }
        with fresh_database(place.dsn) as dsn:
            ours = consumer(
                place.directory,
                self.name,
                bootstrap_servers=place.bootstrap_servers,
                dsn=dsn,
                group=f"{self.name}.{instance}",
                settings={f"CONSUMER_{name}": value for name, value in variables.items()},
            )
            ours.start()
            try:
                samples = ours.watch_applied(self.records[at_once])
            finally:
                ours.child.kill()
        return _Run(*pace(samples), memory(samples)["rss_peak_mib"])


@dataclass(frozen=True, slots=True)
class _Run:
    per_s: float
    cpu_us: float
    rss_peak_mib: float
