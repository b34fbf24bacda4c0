"""The spool on this disk: appends acknowledged after fsync, memory while 200,000 events wait, recovery and drain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from tests.bench.report import spread
from tests.bench.spooler import APPENDERS, PAYLOAD_BYTES

ROOT = Path(__file__).parents[2]
ROUNDS = 5
ROUND_APPENDS = 30_000
EVENTS = 200_000
# What we set out for.
GOALS = {"appends_per_s": 1_500, "p99_ms": 100, "rss_mib": 150}


def run(console: Console, directory: Path, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure on the disk of `directory`; about a minute."""
    rows = []
    for number in range(rounds):
        rows.append(_spooler("fill", directory, ROUND_APPENDS))
        console.print(f"round {number + 1}/{rounds} {rows[-1]['appends_per_s']:6.0f} appends/s")
    filled = _spooler("fill", directory, EVENTS, keep=True)
    console.print(f"{EVENTS} events wait, {filled['rss_full_mib']:.0f} MiB")
    drained = _spooler("drain", directory, EVENTS)
    return {
        "machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]},
        "appenders": APPENDERS,
        "payload_bytes": PAYLOAD_BYTES,
        **{name: [row[name] for row in rows] for name in ("appends_per_s", "p50_ms", "p99_ms", "worst_ms")},
        "cpu_us": [row["cpu_s"] / ROUND_APPENDS * 1e6 for row in rows],
        "filled": filled,
        "drained": drained,
    }


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds, then the one large spool."""
    shown = Table(title=f"spool, {APPENDERS} appenders, {PAYLOAD_BYTES:,} bytes each, fsync before each answer")
    shown.add_column("")
    shown.add_column("spool")
    filled, drained = figures["filled"], figures["drained"]
    rows = (
        (f"appends/s (goal >= {GOALS['appends_per_s']:,})", spread(figures["appends_per_s"])),
        ("p50 ms", spread(figures["p50_ms"])),
        (f"p99 ms (goal <= {GOALS['p99_ms']})", spread(figures["p99_ms"])),
        ("worst ms", spread(figures["worst_ms"])),
        ("CPU µs per append, with the start", spread(figures["cpu_us"])),
        (f"{EVENTS:,} spooled: peak RSS MiB (goal <= {GOALS['rss_mib']})", f"{filled['rss_peak_mib']:.0f}"),
        ("recovered in s", f"{drained['recover_s']:.1f}"),
        ("read and dropped per s", f"{drained['drained_per_s']:,.0f}"),
        (f"meanwhile: peak RSS MiB (goal <= {GOALS['rss_mib']})", f"{drained['rss_peak_mib']:.0f}"),
        ("missing", f"{drained['missing']}"),
    )
    for row in rows:
        shown.add_row(*row)
    return shown


def _spooler(verb: str, directory: Path, count: int, *, keep: bool = False) -> dict[str, Any]:
    """Run the process on a spool of its own; what it filled can be kept for the next one."""
    place = directory / "spool"
    command = [sys.executable, "-m", "tests.bench.spooler", verb, str(place), str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)  # noqa: S603 - our own
    if not keep:
        shutil.rmtree(place)
    result: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return result
