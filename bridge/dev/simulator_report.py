"""What the simulator was answered, counted: a table for people, one JSON document for programs."""

from __future__ import annotations

import math
from array import array
from collections import Counter

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridge.dev.simulator import Answer

PERCENTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))


class Tally:
    """Counts answers as they come; keeps no bodies and no ids."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.answers: Counter[tuple[int, str, str]] = Counter()
        self.retries: Counter[str] = Counter()
        self.failed = 0
        self._latencies_s = array("d")

    def add(self, answer: Answer) -> None:
        """Count one delivery that ended."""
        reply = answer.reply
        self.answers[reply.status, reply.outcome, reply.reason] += 1
        self.retries.update(answer.retried)
        self.failed += not answer.taken
        if reply.status:
            self._latencies_s.append(reply.latency_s)

    @property
    def total(self) -> int:
        """Deliveries that ended."""
        return self.answers.total()

    def latency_ms(self) -> dict[str, float | None]:
        """Nearest-rank percentiles of the time from sending to the answer that ended the delivery."""
        ordered = sorted(self._latencies_s)
        return {
            name: round(ordered[max(0, math.ceil(part * len(ordered)) - 1)] * 1000, 2) if ordered else None
            for name, part in PERCENTILES
        }

    def document(self) -> dict[str, object]:
        """Everything counted, as JSON types."""
        return {
            "deliveries": self.total,
            "failed": self.failed,
            "retries": self.retries.total(),
            "retried": dict(sorted(self.retries.items())),
            "answers": [
                {"status": status or None, "outcome": outcome or None, "reason": reason or None, "count": count}
                for (status, outcome, reason), count in self._ordered()
            ],
            "latency_ms": self.latency_ms(),
        }

    def rendered(self) -> RenderableType:
        """Everything counted, as tables."""
        answers = Table(title="Answers", title_justify="left", title_style="bold")
        answers.add_column("status", justify="right")
        answers.add_column("outcome")
        answers.add_column("reason")
        answers.add_column("deliveries", justify="right")
        for (status, outcome, reason), count in self._ordered():
            style = "green" if 200 <= status < 300 else "red"  # noqa: PLR2004 - 2xx
            answers.add_row(Text(str(status or "none"), style), Text(outcome), Text(reason), f"{count:,}")
        times = Table(title="Latency, ms", title_justify="left", title_style="bold")
        row = self.latency_ms()
        for name in row:
            times.add_column(name, justify="right")
        times.add_row(*("-" if value is None else f"{value:,.1f}" for value in row.values()))
        parts: list[RenderableType] = [answers, times]
        if self.retries:
            causes = ", ".join(f"{count:,} x {cause}" for cause, count in sorted(self.retries.items()))
            parts.append(Text(f"Tried again {self.retries.total():,} times: {causes}", "yellow"))
        return Group(*parts)

    def _ordered(self) -> list[tuple[tuple[int, str, str], int]]:
        return sorted(self.answers.items())
