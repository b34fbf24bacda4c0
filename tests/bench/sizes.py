"""What an event takes where it stays: in the log of a broker, and in the tables of a read model."""

from __future__ import annotations

from pathlib import Path

from tests.postgres import execute


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
