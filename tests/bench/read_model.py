"""The read model from topic to committed rows, on one broker and one database."""

import itertools
import os
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from tests.bench.consuming import Place, Sample, consumer, memory, pace, servers
from tests.cluster import STANDARD_TOPICS
from tests.postgres import execute, fresh_database
from tests.topic_filler import Lives, fill

NAME = "read_model"
TOPIC = "drx.prescriptions.v1"
ROUNDS = 3
# The memory goal counts from here.
SOAK_RECORDS = 1_000_000
QUICK_RECORDS = 150_000
ROUND_RECORDS = 100_000


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


def log_bytes(data: Path, topic: str) -> int:
    """Bytes of a topic's records in the data of one broker."""
    return sum(path.stat().st_size for path in data.rglob(f"{topic}-*/*.log"))


def table_bytes(dsn: str, schema: str) -> dict[str, int]:
    """Bytes of each table, its indexes included, for one event."""
    tables = {"event": f"{schema}.event", "prescription": f"{schema}.prescription", "inbox": "drx_consumer.inbox"}
    wanted = ", ".join(f"pg_total_relation_size('{table}') / count(*)" for table in tables.values())
    ((*taken,),) = execute(dsn, f"select {wanted} from {tables['event']}")[0]  # noqa: S608 - our own names
    return dict(zip(tables, taken, strict=True))


def wal_bytes(dsn: str) -> int:
    """Bytes that the server has ever written ahead."""
    ((written,),) = execute(dsn, "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")[0]
    return int(written)
