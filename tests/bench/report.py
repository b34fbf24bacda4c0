"""The figures as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rich.table import Table

# The last half of the requests may hold this much more than the first: the allocator's noise and the caches of keys.
FLAT_MIB = 5.0
# From here on decimals say nothing.
LARGE = 100


def spread(values: list[float]) -> str:
    median, least, most = (
        f"{value:,.0f}" if value >= LARGE else f"{value:.2f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({least} to {most})"


def _soak(of: dict[str, Any]) -> str:
    rss = [each for _, each in of["rss_mib"]]
    if not rss:
        return ""
    half = len(rss) // 2
    early, late = statistics.median(rss[:half]), statistics.median(rss[half:])
    flat = "flat" if late - early <= FLAT_MIB else "growing"
    return f"{early:.1f}, {late:.1f}: {flat} ({of['rss_mib'][-1][0]:,} requests)"


def _recall(of: dict[str, Any]) -> str:
    found = of["recall_cpu_s"]
    return f"{(found['full'] - found['empty']) / found['records'] * 1e6:.1f}" if found else ""


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("CPU µs per request", lambda of: spread(of["cpu_us"])),
    ("control ÷ this: CPU", lambda of: f"{of['control_cpu_ratio']:.2f}"),
    ("req/s", lambda of: spread(of["req_per_s"])),
    ("this ÷ control: req/s", lambda of: f"{of['control_req_ratio']:.2f}"),
    ("p50 ms", lambda of: spread(of["p50_ms"])),
    ("p99 ms", lambda of: spread(of["p99_ms"])),
    ("at 2,000 req/s: p50 ms", lambda of: spread(of["rate_p50_ms"])),
    ("at 2,000 req/s: p99 ms", lambda of: spread(of["rate_p99_ms"])),
    ("at 2,000 req/s: CPU µs per request", lambda of: spread(of["rate_cpu_us"])),
    ("peak RSS MiB", lambda of: f"{of['rss_peak_mib']}"),
    ("soak: RSS MiB, median of first and last half", _soak),
    ("restart: CPU µs for a record that is recalled", _recall),
    ("acknowledged", lambda of: f"{of['acknowledged']:,}"),
    ("acknowledged but not in the topic", lambda of: f"{of['missing']}"),
)


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds; a ratio above 1 speaks against the control."""
    shown = Table(title="ingress, 64 connections, 1 KB bodies, 10,000 keys, one broker, new topics in every round")
    shown.add_column("")
    for each in figures["candidates"]:
        shown.add_column(each["name"])
    for name, cell in _ROWS:
        shown.add_row(name, *(cell(each) for each in figures["candidates"]))
    return shown
