"""A `drx-consumer run` process, with the number of applied records and its resource usage."""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bridge.dev.kafka import create_topics
from bridge.dev.ports import free_port
from bridge.dev.postgres import PostgresServer
from bridge.dev.programs import find_postgres
from tests.bench.processes import MIB, Process, cpu_s, rss_peak
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster
from tests.postgres import fresh_database
from tests.topic_filler import Lives, fill

ROUNDS = 3
# Interval of samples, each of which costs the process some milliseconds.
SAMPLE_S = 0.5
# Nothing applied for this long means that it hangs.
SILENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """The environment of a consumer benchmark."""

    directory: Path
    bootstrap_servers: str
    dsn: str  # of a server, on which databases are made
    written: int  # records in the topic


@contextmanager
def filled(lives: Lives) -> Iterator[Place]:
    """Run a broker with a topic of these histories, and a database server, in a new directory."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    # The child that serves the database runs as another user when we are root.
    directory.chmod(0o755)
    cluster = EmbeddedCluster(directory, brokers=1)
    server = PostgresServer(
        directory / "postgres", programs=find_postgres(), port=free_port(), log=directory / "postgres.log"
    )
    try:
        cluster.start()
        server.start()
        server.wait_ready()
        create_topics(cluster.bootstrap_servers, STANDARD_TOPICS)
        written = fill(cluster.bootstrap_servers, lives.records())
        yield Place(directory, cluster.bootstrap_servers, server.dsn, written)
    finally:
        server.stop()
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def consuming(place: Place, name: str, **settings: str) -> Iterator[tuple[Process, str]]:
    """Run a consumer of a new group on a new database; yield its DSN, too."""
    with fresh_database(place.dsn) as dsn:
        ours = {
            "KAFKA__BOOTSTRAP_SERVERS": place.bootstrap_servers,
            "KAFKA__OFFSET_RESET": "earliest",
            "KAFKA__SESSION_S": "10",
            "POSTGRES__DSN": dsn,
            **settings,
        }
        process = Process("consumers", "run", name, prefix="CONSUMER", directory=place.directory, settings=ours)
        process.start()
        try:
            yield process, dsn
        finally:
            process.kill()


class Sample(NamedTuple):
    """One sample: time, records applied so far, CPU seconds used so far."""

    at: float
    applied: float
    cpu_s: float


class Pace(NamedTuple):
    """The result of a run."""

    per_s: float
    cpu_us: float
    rss_peak: int


def measured(process: Process, records: int, *, after: int = 0) -> Pace:
    """Wait until the consumer has applied `records`, in any order.

    Those up to `after` are not counted, and neither are the first, which wait for the group to form.
    """
    samples = [Sample(0.0, 0.0, 0.0)]
    moved_at = time.monotonic()
    while samples[-1].applied < records:
        time.sleep(SAMPLE_S)
        applied = process.metric("drxbridge_consumer_records_total", 'outcome="applied"')
        if applied > samples[-1].applied:
            moved_at = time.monotonic()
        if not process.alive or time.monotonic() - moved_at > SILENT_S:
            sys.exit(f"it has stopped at {applied:,.0f} records: {process.last_line}")
        samples.append(Sample(time.perf_counter(), applied, cpu_s(process)))
    first, last = next(each for each in samples if each.applied > after), samples[-1]
    count = last.applied - first.applied
    return Pace(count / (last.at - first.at), (last.cpu_s - first.cpu_s) / count * 1e6, rss_peak(process))


def figures(paces: Sequence[Pace]) -> dict[str, Any]:
    return {
        "events_per_s": [round(each.per_s) for each in paces],
        "cpu_us": [round(each.cpu_us, 1) for each in paces],
        "rss_peak_mib": round(max(each.rss_peak for each in paces) / MIB, 1),
    }
