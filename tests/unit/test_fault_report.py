"""The table of the fault matrix adds up the runs of a row and replaces only what stands between the marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.alerts import results as alerts
from tests.faults.ingress.results import Result, keep, kept
from tests.faults.report import BEGIN, END, PAGE, alert_table, main, render, table

ZEROS = dict.fromkeys(Result.__dataclass_fields__, 0)


def a_result(**changes: Any) -> Result:
    return Result(**{**ZEROS, "row": "B1", "title": "leader killed", **changes})


def test_runs_of_a_row_are_one_line_with_sums_and_worst_figures() -> None:
    results = [
        a_result(requests=1_000, lost=1, worst_answer_s=4.0),
        a_result(row="P1", title="killed", requests=7),
        a_result(requests=2_000, lost=2, worst_answer_s=3.0),
    ]
    lines = render(f"a\n{BEGIN}\nold\n{END}\nb\n", table(results)).splitlines()

    assert lines[0] == "a"
    assert lines[-1] == "b"
    assert [line.split(" | ")[:4] for line in lines[4:7]] == [
        ["| B1", "leader killed", "2", "3,000"],
        ["| P1", "killed", "1", "7"],
        ["| all", "", "3", "3,007"],
    ]
    assert lines[4].split(" | ")[7] == "3"
    assert lines[4].split(" | ")[12] == "4.0"


def test_what_is_kept_is_found_again_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "build" / "rows.ndjson"
    keep(a_result(row="B1"), path)
    keep(a_result(row="B2"), path)

    assert [result.row for result in kept(path)] == ["B1", "B2"]


def an_alert(**changes: Any) -> alerts.Result:
    fields: dict[str, Any] = {"alert": "SpoolInUse", "severity": "ticket", "fault": "broker killed", "factor": 60}
    return alerts.Result(**{**fields, "fired_s": 1.0, "cleared_s": 2.0, "others": [], **changes})


def test_an_alert_is_one_line_with_the_longest_times_and_all_that_came_with_it() -> None:
    results = [
        an_alert(fired_s=4.0, others=["ProduceFailing"]),
        an_alert(alert="IdConflict"),
        an_alert(cleared_s=7.0, others=["HeartbeatMissing"]),
    ]

    assert alert_table(results).splitlines()[2:] == [
        "| IdConflict | ticket | broker killed | 1 | 60 | 1.0 | 2.0 |  |",
        "| SpoolInUse | ticket | broker killed | 2 | 60 | 4.0 | 7.0 | HeartbeatMissing, ProduceFailing |",
    ]


def test_the_page_has_a_place_for_each_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    keep(a_result(requests=42), tmp_path / "rows.ndjson")
    alerts.keep(an_alert(), tmp_path / "alerts.ndjson")

    assert main(page, tmp_path) == 0
    assert "| B1 | leader killed | 1 | 42 |" in page.read_text()
    assert "| SpoolInUse | ticket | broker killed | 1 | 60 | 1.0 | 2.0 |  |" in page.read_text()


def test_what_has_not_been_run_leaves_its_table_as_it_was(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    alerts.keep(an_alert(), tmp_path / "alerts.ndjson")

    assert main(page, tmp_path) == 0
    kept_table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert kept_table in page.read_text()
