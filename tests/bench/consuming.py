"""A `drx-consumer run` as a process, and what it has settled and used, seen from outside."""

import asyncio
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
import asyncpg  # noqa: TID251 - looks at what the consumer has committed
import psutil

from bridge.dev.kafka import create_topics
from bridge.dev.ports import HOST, free_port
from bridge.dev.postgres import PostgresServer
from bridge.dev.processes import Child
from bridge.dev.programs import find_postgres
from bridge.dev.services import child_environment, get
from tests.cluster import EmbeddedCluster
from tests.installed import ROOT

START_S = 60.0
STOP_S = 60.0
# Between two looks: each costs the database a query on a dozen rows.
SAMPLE_S = 0.2
# Nothing settled for this long means that it hangs.
SILENT_S = 60.0
MIB = 2**20
_APPLIED = re.compile(r'^drxbridge_consumer_records_total\{[^}]*outcome="applied"[^}]*\} (\S+)', re.MULTILINE)
_SETTLED = "select coalesce(sum(next_offset), 0)::bigint from drx_consumer.progress where grp = $1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bench of consumers runs; `dsn` is that of a server, on which databases are made."""

    directory: Path
    bootstrap_servers: str
    dsn: str


@contextmanager
def servers(topics: Mapping[str, int]) -> Iterator[Place]:
    """Run a broker with these topics and a database server, in a directory of their own."""
    directory = Path(tempfile.mkdtemp(prefix="drx-bench-"))
    # The child that serves the database runs as another user when we are root.
    directory.chmod(0o755)
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    server = PostgresServer(
        directory / "postgres", programs=find_postgres(), port=free_port(), log=directory / "postgres.log"
    )
    try:
        server.start()
        server.wait_ready()
        create_topics(cluster.bootstrap_servers, topics)
        yield Place(directory, cluster.bootstrap_servers, server.dsn)
    finally:
        server.stop()
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Sample(NamedTuple):
    """One look: when, records settled so far, CPU seconds used so far, resident bytes."""

    at: float
    settled: int
    cpu_s: float
    rss: int


@dataclass
class Consuming:
    """One consumer process of a group that began with nothing."""

    child: Child
    group: str
    management_port: int
    samples: list[Sample] = field(default_factory=list)
    # How many records of the group are settled; the mark of a partition waits for its slowest lane.
    settled: str = _SETTLED

    def start(self) -> None:
        """Return when it runs, before it has joined its group."""
        self.child.start()

    def wait_ready(self) -> None:
        """Return when it has joined its group."""
        deadline = time.monotonic() + START_S
        while get(self.management_port, "/readyz")[0] != 200:
            if not self.child.alive or time.monotonic() > deadline:
                sys.exit(f"{self.child.name} does not get ready: {self.child.last_line}")
            time.sleep(0.1)

    def stop(self) -> int | None:
        self.child.stop()
        return self.child.exit_code

    def watch(self, dsn: str, wanted: int) -> list[Sample]:
        """Sample it until it has settled `wanted` records."""
        asyncio.run(self._watch(dsn, wanted))
        return self.samples

    def watch_applied(self, wanted: int) -> list[Sample]:
        """Sample it until it has applied `wanted` records, in any order: with lanes, progress is far behind that."""
        asyncio.run(self._until(wanted, self._applied))
        return self.samples

    async def _watch(self, dsn: str, wanted: int) -> None:
        connection = await asyncpg.connect(dsn)

        async def settled() -> int:
            try:
                return int(await connection.fetchval(self.settled, self.group))
            except asyncpg.UndefinedTableError:  # it has not made them yet
                return 0

        try:
            await self._until(wanted, settled)
        finally:
            await connection.close()

    async def _until(self, wanted: int, count: Callable[[], Awaitable[int]]) -> None:
        moved_at = time.monotonic()
        while not self.samples or self.samples[-1].settled < wanted:
            await asyncio.sleep(SAMPLE_S)
            before = self.samples[-1].settled if self.samples else -1
            self.samples.append(self._sample(await count()))
            if self.samples[-1].settled > before:
                moved_at = time.monotonic()
            if not self.child.alive or time.monotonic() - moved_at > SILENT_S:
                sys.exit(f"{self.child.name} has stopped at {before} records: {self.child.last_line}")

    async def _applied(self) -> int:
        url = f"http://{HOST}:{self.management_port}/metrics"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                found = _APPLIED.findall(await answer.text())
        except aiohttp.ClientConnectorError:  # it does not listen yet
            return 0
        return int(sum(map(float, found)))

    def _sample(self, settled: int) -> Sample:
        process = psutil.Process(self.child.pid)
        times = process.cpu_times()
        return Sample(time.perf_counter(), settled, times.user + times.system, process.memory_info().rss)


class Pace(NamedTuple):
    """What a run of samples says; the first records, which wait for the group to form, are not counted."""

    per_s: float
    cpu_us: float


def pace(samples: Sequence[Sample]) -> Pace:
    """Records a second and CPU time of one record, from the first look that saw any."""
    first, last = next(each for each in samples if each.settled), samples[-1]
    records = last.settled - first.settled
    return Pace(records / (last.at - first.at), (last.cpu_s - first.cpu_s) / records * 1e6)


def memory(samples: Sequence[Sample]) -> dict[str, float]:
    """Peak, and the medians of both halves of the records, in MiB."""
    half = samples[-1].settled / 2
    parts = {
        "rss_first_half_mib": [each.rss for each in samples if 0 < each.settled <= half],
        "rss_last_half_mib": [each.rss for each in samples if each.settled > half],
    }
    peak = max(each.rss for each in samples)
    return {
        "rss_peak_mib": round(peak / MIB, 1),
        **{name: round(statistics.median(each) / MIB, 1) for name, each in parts.items()},
    }


def consumer(
    directory: Path,
    name: str,
    *,
    bootstrap_servers: str,
    dsn: str,
    group: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Consuming:
    """Describe the process; `settings` are further variables of its environment."""
    port = free_port()
    environment = {
        "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "CONSUMER_KAFKA__OFFSET_RESET": "earliest",
        "CONSUMER_KAFKA__SESSION_S": "10",
        "CONSUMER_POSTGRES__DSN": dsn,
        "CONSUMER_MANAGEMENT__HOST": HOST,
        "CONSUMER_MANAGEMENT__PORT": str(port),
        "CONSUMER_LOG__LEVEL": "info",
        "PYTHONPATH": str(ROOT),
        **(settings or {}),
    }
    child = Child(
        name,
        command=[sys.executable, "-m", "consumers", "run", name],
        cwd=directory,
        log=directory / f"{group or name}.log",
        env=child_environment(os.environ, environment),
        grace_s=STOP_S,
    )
    return Consuming(child, group or name, port)
