"""The figures of the consumers as a table for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from tests.bench.report import spread

# What the goals say: events a second, how much better eight lanes are, how much worse a hanging key makes the others,
# and the memory of a process.
GOALS = {"events_per_s": 10_000, "lanes_ratio": 6.0, "p99_ratio": 2.0, "rss_mib": 200}
# The last half of the records may hold this much more than the first: the allocator's noise.
FLAT_MIB = 10.0


def table(figures: dict[str, Any]) -> Table:
    """Median, least and most of the rounds; then one run over the whole topic, and the sinks that take 20 ms."""
    shown = Table(title="read model, 12 partitions, one broker, one database, one process", show_lines=False)
    for column in ("", "(a) poll and decode", "(b) one by one", "(c) read model"):
        shown.add_column(column)
    order = ("poll", "one_by_one", "read_model")
    shown.add_row("events/s", *(spread(figures[each]["events_per_s"]) for each in order))
    shown.add_row("CPU µs per event", *(spread(figures[each]["cpu_us"]) for each in order))
    shown.add_row("events/s, (c) / …", f"{figures['ratio_to_poll']:.2f}", f"{figures['ratio_to_one_by_one']:.2f}", "")
    shown.add_section()
    soak, sinks = figures["soak"], figures["slow_sinks"]
    for name, cell in (
        (f"{soak['records']:,} records: events/s", _goal(soak["events_per_s"], f">= {GOALS['events_per_s']:,}")),
        ("peak RSS MiB", _goal(soak["rss_peak_mib"], f"<= {GOALS['rss_mib']}")),
        ("RSS MiB, median of first and last half", _memory(soak)),
        ("bytes of an event in the log", f"{figures['log_bytes']:,}"),
        (
            "bytes of an event in PostgreSQL",
            ", ".join(f"{name} {taken:,}" for name, taken in soak["bytes_each"].items()),
        ),
        ("sink of 20 ms, 8 lanes / one lane", _goal(sinks["lanes_ratio"], f">= {GOALS['lanes_ratio']:g}")),
        ("p99 ms of the others, no key hangs", f"{sinks['p99_ms']:.1f}"),
        ("p99 ms of the others, one key hangs", f"{sinks['p99_beside_hanging_ms']:.1f}"),
        ("ratio", _goal(sinks["p99_ratio"], f"<= {GOALS['p99_ratio']:g}")),
    ):
        shown.add_row(name, "", "", cell)
    return shown


def _goal(value: float, goal: str) -> str:
    return f"{value:,} (goal {goal})"


def _memory(soak: dict[str, Any]) -> str:
    early, late = soak["rss_first_half_mib"], soak["rss_last_half_mib"]
    return f"{early}, {late}: {'flat' if late - early <= FLAT_MIB else 'growing'}"
