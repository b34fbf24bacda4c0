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
    """Median, least and most."""
    median, least, most = (
        f"{value:,.0f}" if value >= LARGE else f"{value:.2f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({least} to {most})"


def _memory(of: dict[str, Any]) -> str:
    early, late = of["rss_first_half_mib"], of["rss_last_half_mib"]
    flat = "flat" if late - early <= FLAT_MIB else "growing"
    return f"{early}, {late}: {flat} ({of['made']:,} requests)"


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("req/s", lambda of: spread(of["req_per_s"])),
    ("CPU µs per request", lambda of: spread(of["cpu_us"])),
    ("p50 ms", lambda of: spread(of["p50_ms"])),
    ("p99 ms", lambda of: spread(of["p99_ms"])),
    ("at 2,000 req/s: p50 ms", lambda of: spread(of["rate_p50_ms"])),
    ("at 2,000 req/s: p99 ms", lambda of: spread(of["rate_p99_ms"])),
    ("at 2,000 req/s: CPU µs per request", lambda of: spread(of["rate_cpu_us"])),
    ("peak RSS MiB", lambda of: f"{of['rss_peak_mib']}"),
    ("RSS MiB, median of first and last half", _memory),
    ("acknowledged", lambda of: f"{of['acknowledged']:,}"),
    ("acknowledged but not in the topic", lambda of: f"{of['missing']}"),
)


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds; a ratio above 1 speaks for the bridge."""
    shown = Table(title="ingress, 64 connections, 1 KB bodies, 10,000 keys, one broker")
    for column in ("", "(a) naive", "(b) bridge"):
        shown.add_column(column)
    for name, cell in _ROWS:
        shown.add_row(name, cell(figures["naive"]), cell(figures["bridge"]))
    shown.add_section()
    shown.add_row("req/s, (b) / (a)", "", f"{figures['ratio_req_per_s']:.2f}")
    shown.add_row("CPU, (a) / (b)", "", f"{figures['ratio_cpu']:.2f}")
    return shown
