"""Renders the results of fault runs into docs/reliability.md: `python -m tests.faults.report`."""

import sys
from collections.abc import Sequence
from itertools import groupby

from tests.faults.alerts import results as alerts
from tests.faults.ingress.results import RESULTS, ROOT, Result, kept
from tests.kubernetes import results as kubernetes

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
CLUSTER_BEGIN, CLUSTER_END = "<!-- cluster: begin -->", "<!-- cluster: end -->"
ALERTS_BEGIN, ALERTS_END = "<!-- alerts: begin -->", "<!-- alerts: end -->"
# Column to the figure of one row over all its runs.
_SUMS = {
    "requests": "requests",
    "2xx": "promised",
    "503": "unavailable",
    "no response": "unanswered",
    "lost": "lost",
    "forged or foreign": "foreign",
    "out of order": "misordered",
    "duplicate effects": "repeated_effects",
    "duplicated in the log": "repeated",
}
_WORST = {
    "slowest response, s": "worst_answer_s",
    "sender late, s": "sender_late_s",
    "recovery, s": "recovery_s",
    "largest RSS, MiB": "rss_peak_mib",
}
_OF_CLUSTER = ("lost", "forged or foreign", "out of order", "duplicated in the log")
# Only for rows that measure genuine deliveries before and during an attack.
_BESIDE = {"p99 before, ms": "p99_calm_s", "p99 during, ms": "p99_s"}


def table(results: Sequence[Result]) -> str:
    columns = ["row", "fault", "runs", *_SUMS, *_WORST, *_BESIDE]
    lines = [_line(columns), _line(["---", "---", *["--:" for _ in columns[2:]]])]
    for name, runs in groupby(sorted(results, key=lambda result: result.row), key=lambda result: result.row):
        lines.append(_line(_cells(name, list(runs))))
    lines.append(_line(_cells("all", results, title="")))
    return "\n".join(lines)


def alert_table(results: Sequence[alerts.Result]) -> str:
    columns = ["alert", "urgency", "fault", "runs", "time ÷", "fires after, s", "clears after, s", "comes with"]
    lines = [_line(columns), _line(["---", "---", "---", "--:", "--:", "--:", "--:", "---"])]
    for _, found in groupby(sorted(results, key=_alert), key=_alert):
        runs = list(found)
        waits = (f"{max(getattr(run, figure) for run in runs):.1f}" for figure in ("fired_s", "cleared_s"))
        others = ", ".join(sorted({other for run in runs for other in run.others}))
        lines.append(_line([*_alert(runs[-1]), str(len(runs)), str(runs[-1].factor), *waits, others]))
    return "\n".join(lines)


def cluster_table(results: Sequence[kubernetes.Result]) -> str:
    sums = {"requests": "requests", "2xx": "promised", **{each: _SUMS[each] for each in _OF_CLUSTER}}
    columns = ["row", "what happens", "seconds", *sums, "slowest response, s"]
    lines = [_line(columns), _line(["---", "---", *["--:" for _ in columns[2:]]])]
    for each in sorted(results, key=lambda result: result.row):
        figures = [f"{getattr(each, figure):,}" if each.requests else "" for figure in sums.values()]
        slowest = f"{each.worst_answer_s:.1f}" if each.requests else ""
        lines.append(_line([each.row, each.title, f"{each.seconds:.0f}", *figures, slowest]))
    return "\n".join(lines)


def render(page: str, text: str, *, begin: str = BEGIN, end: str = END) -> str:
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n{end}{after}"


def _alert(result: alerts.Result) -> tuple[str, str, str]:
    return result.alert, result.severity, result.fault


def _cells(name: str, runs: Sequence[Result], title: str | None = None) -> list[str]:
    return [
        name,
        runs[-1].title if title is None else title,
        str(len(runs)),
        *(f"{sum(getattr(run, figure) for run in runs):,}" for figure in _SUMS.values()),
        *(f"{max(getattr(run, figure) for run in runs):.1f}" for figure in _WORST.values()),
        *(
            f"{1000 * max(getattr(run, figure) for run in runs):.0f}" if runs[-1].p99_s else ""
            for figure in _BESIDE.values()
        ),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    rows, fired = kept(Result, RESULTS), kept(alerts.Result, alerts.RESULTS)
    clusters = kept(kubernetes.Result, kubernetes.RESULTS)
    if not rows and not fired and not clusters:
        print(f"no results in {RESULTS.parent.relative_to(ROOT)}: `make faults` makes them", file=sys.stderr)  # noqa: T201
        return 1
    text = PAGE.read_text(encoding="utf-8")
    if rows:
        text = render(text, table(rows))
    if fired:
        text = render(text, alert_table(fired), begin=ALERTS_BEGIN, end=ALERTS_END)
    if clusters:
        text = render(text, cluster_table(clusters), begin=CLUSTER_BEGIN, end=CLUSTER_END)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
