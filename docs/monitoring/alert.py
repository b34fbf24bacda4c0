"""What an alert is, and the questions that several of them ask alike."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["page", "ticket"]
# In the repository; the chart puts an address in its place.
RUNBOOKS = "docs/runbooks"
# A cause that comes and goes pages once. What it entails, such as events that are applied late after an outage, ends
# about 7 minutes after it (the short window of the objectives and its hold) and is inhibited by it for as long.
AFTERMATH = "10m"


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule; rules of one name tell each other apart by `more`.

    Attributes:
        threshold: The number in `expr` that a site may want otherwise, after its `>`; empty: none.
        keep: How long it goes on firing after its condition has ended.
    """

    name: str
    expr: str
    severity: Severity
    summary: str
    hold: str = ""
    more: dict[str, str] = field(default_factory=dict)
    threshold: str = ""
    keep: str = ""

    def rule(self) -> dict[str, object]:
        """Return it as a rule file has it."""
        held = {"for": self.hold} if self.hold else {}
        kept = {"keep_firing_for": self.keep} if self.keep else {}
        return {
            "alert": self.name,
            "expr": self.expr,
            **held,
            **kept,
            "labels": {"severity": self.severity, **self.more},
            "annotations": {"summary": self.summary, "runbook_url": f"{RUNBOOKS}/{self.name}.md"},
        }


def grew(counter: str, span: str, *, by: str) -> str:
    """Return how much a counter grew, also one of which there is no value at the beginning of the span.

    `increase` alone sees only later ones. Where a scrape had failed just then, or the process was down, the last value
    before counts; a series that begins with its first count, or again, has grown by all that it says.
    """
    old = f"increase({counter}[{span}]) and {counter} offset {span}"
    gap = f"{counter} - last_over_time({counter}[1d] offset {span}) >= 0"
    return f"sum by ({by}) (({old})\n  or ({gap})\n  or {counter})"
