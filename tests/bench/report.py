"""The figures as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rich.table import Table

# Above this the second half of a run has not grown out of the first half's noise (allocator, caches of 16,384 keys).
FLAT_MIB = 5.0


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("req/s", lambda of: _spread(of["req_per_s"])),
    ("CPU µs per request", lambda of: _spread(of["cpu_us"])),
    ("p50 ms", lambda of: _spread(of["p50_ms"])),
    ("p99 ms", lambda of: _spread(of["p99_ms"])),
    ("at 2,000 req/s: p50 ms", lambda of: _spread(of["rate_p50_ms"])),
    ("at 2,000 req/s: p99 ms", lambda of: _spread(of["rate_p99_ms"])),
    ("at 2,000 req/s: CPU µs per request", lambda of: _spread(of["rate_cpu_us"])),
    ("peak RSS MiB", lambda of: f"{of['rss_peak_mib']}"),
    (
        "RSS MiB, first and last half",
        lambda of: f"{of['rss_first_half_mib']}, {of['rss_last_half_mib']} ({of['made']:,} requests)",
    ),
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
