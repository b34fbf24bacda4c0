"""The read model from topic to committed rows, against two controls on one broker and one database."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import psutil
from rich.console import Console

from tests.bench import slow_sinks
from tests.bench.consuming import Pace, Place, Sample, consumer, memory, pace, servers
from tests.bench.sizes import log_bytes, table_bytes, wal_bytes
from tests.cluster import STANDARD_TOPICS
from tests.installed import ROOT
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

NAME = "read_model"
TOPIC = "drx.prescriptions.v1"
ROUNDS = 3
# The memory goal counts from here.
SOAK_RECORDS = 1_000_000
QUICK_RECORDS = 150_000
ROUND_RECORDS = 100_000
# A tenth: each event is a transaction.
ONE_BY_ONE_RECORDS = 10_000


@dataclass
class Candidate:
    """One of the three, with all that was measured of it."""

    name: str
    run: Callable[[], Pace]
    paces: list[Pace] = field(default_factory=list)


class Bench:
    """A topic that is full, and databases that are empty."""

    def __init__(self, place: Place) -> None:
        """Read from there, write there."""
        self.place = place
        self._numbers = itertools.count(1)
        self.bytes_each: dict[str, int] = {}

    def poll(self) -> Pace:
        """Only poll and decode."""
        return self._control("poll", ROUND_RECORDS)

    def one_by_one(self) -> Pace:
        """Write each event in a transaction of its own."""
        with fresh_database(self.place.dsn) as dsn:
            return self._control("one_by_one", ONE_BY_ONE_RECORDS, dsn)

    def read_model(self) -> Pace:
        """Run ours on the same records."""
        return pace(self.samples(ROUND_RECORDS))

    def samples(self, records: int) -> list[Sample]:
        """Run ours until `records` are settled; `bytes_each` is then what an event takes in the database."""
        # A schema is a read model of its own, with its own group.
        schema = f"bench_{next(self._numbers)}"
        with fresh_database(self.place.dsn) as dsn:
            ours = consumer(
                self.place.directory,
                NAME,
                bootstrap_servers=self.place.bootstrap_servers,
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
            self.bytes_each = {"written ahead": round(written / samples[-1].settled), **table_bytes(dsn, schema)}
            return samples

    def _control(self, name: str, records: int, *dsn: str) -> Pace:
        command = [sys.executable, "-m", "tests.bench.controls", name, self.place.bootstrap_servers, TOPIC]
        done = subprocess.run(  # noqa: S603 - our own command line
            [*command, str(records), *dsn], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        took = orjson.loads(done.stdout)
        return Pace(took["records"] / took["elapsed_s"], took["cpu_s"] / took["records"] * 1e6)


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; about eight minutes."""
    with servers(STANDARD_TOPICS) as place:
        soak = QUICK_RECORDS if quick else SOAK_RECORDS
        written = fill(place.bootstrap_servers, Lives.of_records(soak).records(TOPIC))
        console.print(f"{written:,} records in the topic")
        figures = _measure(console, Bench(place), soak, 1 if quick else ROUNDS)
        return figures | {"log_bytes": round(log_bytes(place.directory / "kafka", TOPIC) / written)}


def _measure(console: Console, bench: Bench, soak: int, rounds: int) -> dict[str, Any]:
    """Take turns, so that what else the machine does meets all alike."""
    candidates = [
        Candidate("poll", bench.poll),
        Candidate("one_by_one", bench.one_by_one),
        Candidate(NAME, bench.read_model),
    ]
    for number, each in itertools.product(range(rounds), candidates):
        each.paces.append(each.run())
        last = each.paces[-1]
        console.print(f"round {number + 1}/{rounds} {each.name:10} {last.per_s:7,.0f} events/s {last.cpu_us:5.0f} µs")
    samples = bench.samples(soak)
    whole = pace(samples)
    console.print(f"{samples[-1].settled:,} records {whole.per_s:,.0f} events/s")
    return {
        "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
        **{each.name: _figures(each.paces) for each in candidates},
        "soak": {
            "records": samples[-1].settled,
            "events_per_s": round(whole.per_s),
            "cpu_us": round(whole.cpu_us, 1),
            "bytes_each": bench.bytes_each,
            **memory(samples),
            "rss_mib": [[each.settled, round(each.rss / 2**20, 1)] for each in samples[:: max(1, len(samples) // 50)]],
        },
        # Pairwise, so that a slow minute of the machine cancels out.
        "ratio_to_poll": _ratio(candidates[-1], candidates[0]),
        "ratio_to_one_by_one": _ratio(candidates[-1], candidates[1]),
        "slow_sinks": slow_sinks.run(console, bench.place),
    }


def _figures(paces: list[Pace]) -> dict[str, Any]:
    return {
        "events_per_s": [round(each.per_s) for each in paces],
        "cpu_us": [round(each.cpu_us, 1) for each in paces],
    }


def _ratio(ours: Candidate, control: Candidate) -> float:
    pairs = zip(ours.paces, control.paces, strict=True)
    return round(statistics.median(a.per_s / b.per_s for a, b in pairs), 2)
