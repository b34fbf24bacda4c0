"""The read model from topic to committed rows, on one broker and one database."""

from pathlib import Path
from typing import Any

from rich.console import Console

from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from tests.bench.consuming import ROUNDS, Pace, Place, consuming, figures, filled, measured
from tests.postgres import execute
from tests.topic_filler import Lives

# The memory goal counts from here.
SOAK_RECORDS = 1_000_000
QUICK_RECORDS = 150_000
ROUND_RECORDS = 100_000


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure rounds on the same records, then one run over the whole topic; about five minutes."""
    paces: list[Pace] = []
    with filled(Lives.of_records(QUICK_RECORDS if quick else SOAK_RECORDS)) as place:
        console.print(f"{place.written:,} records in the topic")
        for records in (*[ROUND_RECORDS] * (1 if quick else ROUNDS), place.written):
            found, bytes_each = _measured(place, f"bench_{len(paces)}", records)
            paces.append(found)
            console.print(f"{records:,} records {found.per_s:7,.0f} events/s {found.cpu_us:5.0f} µs")
        return figures(paces) | {
            "bytes_each": bytes_each,
            "log_bytes": round(log_bytes(place.directory / "kafka") / place.written),
        }


def _measured(place: Place, schema: str, records: int) -> tuple[Pace, dict[str, int]]:
    """Run it until `records` are applied; also return the database's bytes per event."""
    before = wal_bytes(place.dsn)
    # Each schema is a separate read model, with a separate group.
    with consuming(place, "read_model", READ_MODEL__SCHEMA=schema) as (process, dsn):
        found = measured(process, records)
        return found, {"written ahead": round((wal_bytes(dsn) - before) / records), **table_bytes(dsn, schema)}


def log_bytes(data: Path) -> int:
    """Bytes of the topic's records in the data of one broker."""
    return sum(path.stat().st_size for path in data.rglob(f"{PRESCRIPTIONS_TOPIC}-*/*.log"))


def table_bytes(dsn: str, schema: str) -> dict[str, int]:
    """Bytes of each table, its indexes included, for one event."""
    tables = {"event": f"{schema}.event", "prescription": f"{schema}.prescription", "inbox": "drx_consumer.inbox"}
    wanted = ", ".join(f"pg_total_relation_size('{table}') / count(*)" for table in tables.values())
    ((*taken,),) = execute(dsn, f"select {wanted} from {tables['event']}")[0]  # noqa: S608 - our own names
    return dict(zip(tables, taken, strict=True))


def wal_bytes(dsn: str) -> int:
    """Bytes of the write-ahead log since the server's creation."""
    ((written,),) = execute(dsn, "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")[0]
    return int(written)
