"""Renders the results of the fault matrix into docs/reliability.md: `python -m tests.faults.report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tests.faults.ingress.results import RESULTS, ROOT, Result, kept

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
# Column to the figure of one row over all its runs.
_SUMS = {
    "requests": "requests",
    "2xx": "promised",
    "503": "unavailable",
    "no answer": "unanswered",
    "lost": "lost",
    "forged or foreign": "foreign",
    "out of order": "misordered",
    "duplicate effects": "repeated_effects",
    "duplicated in the log": "repeated",
}
_WORST = {"worst answer, s": "worst_answer_s", "recovery, s": "recovery_s", "largest RSS, MiB": "rss_peak_mib"}


def table(results: Sequence[Result]) -> str:
    """Give each row of the matrix one line, over all its runs, and the sums one more."""
    columns = ["row", "what is done", "runs", *_SUMS, *_WORST]
    lines = [_line(columns), _line(["---", "---", *["--:" for _ in columns[2:]]])]
    by_row = sorted(results, key=lambda result: result.row)
    for name, runs in groupby(by_row, key=lambda result: result.row):
        lines.append(_line(_cells(name, list(runs))))
    lines.append(_line(_cells("all", results, title="")))
    return "\n".join(lines)


def render(page: str, results: Sequence[Result]) -> str:
    """Put the table between the marks of the page."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(results)}\n{END}{after}"


def _cells(name: str, runs: Sequence[Result], title: str | None = None) -> list[str]:
    return [
        name,
        runs[-1].title if title is None else title,
        str(len(runs)),
        *(f"{sum(getattr(run, figure) for run in runs):,}" for figure in _SUMS.values()),
        *(f"{max(getattr(run, figure) for run in runs):.1f}" for figure in _WORST.values()),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(page: Path = PAGE, results: Path = RESULTS) -> int:
    """Render the page from all results; 1 when there are none."""
    found = kept(results)
    if not found:
        print(f"no results in {results.relative_to(ROOT)}: `make faults` makes them", file=sys.stderr)  # noqa: T201
        return 1
    page.write_text(render(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
