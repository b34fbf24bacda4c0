"""`archive` from topic to published files, into a directory of this disk."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyarrow import parquet  # noqa: TID251 - reads what was written
from rich.console import Console

from tests.bench.consuming import servers
from tests.bench.sending import TOPICS, Sending

SENDING = Sending(
    "archive",
    "events a file",
    records={5_000: 200_000},
    instance="SCHEMA",
    # More than a window holds.
    spare=50_000,
)


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    with servers(TOPICS) as place:
        lake = place.directory / "lake"
        sizes: list[float] = []

        @contextmanager
        def settings(events: int) -> Iterator[dict[str, str]]:
            yield {"ARCHIVE__ROOT": str(lake), "ARCHIVE__BATCH_RECORDS": str(events)}
            sizes.append(_bytes_per_event(lake))
            shutil.rmtree(lake)

        figures = SENDING.run(console, place, settings, quick=quick)
        console.print(f"{sizes[-1]} bytes per event")
        return figures | {"bytes_per_event": sizes}


def _bytes_per_event(lake: Path) -> float:
    """Of all files, published or staged."""
    files = list(lake.rglob("*.parquet"))
    rows: int = sum(parquet.read_metadata(path).num_rows for path in files)
    size: int = sum(path.stat().st_size for path in files)
    return round(size / rows, 1)
