"""The table of the fault matrix adds up the runs of a row and replaces only what stands between the marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.faults.ingress.results import Result, keep, kept
from tests.faults.report import BEGIN, END, PAGE, main, render

ZEROS = dict.fromkeys(Result.__dataclass_fields__, 0)


def a_result(**changes: Any) -> Result:
    return Result(**{**ZEROS, "row": "B1", "title": "leader killed", **changes})


def test_runs_of_a_row_are_one_line_with_sums_and_worst_figures() -> None:
    results = [
        a_result(requests=1_000, lost=1, worst_answer_s=4.0),
        a_result(row="P1", title="killed", requests=7),
        a_result(requests=2_000, lost=2, worst_answer_s=3.0),
    ]
    lines = render(f"a\n{BEGIN}\nold\n{END}\nb\n", results).splitlines()

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


def test_the_page_has_a_place_for_the_table(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "rows.ndjson"
    page.write_text(PAGE.read_text())
    keep(a_result(requests=42), results)

    assert main(page, results) == 0
    assert "| B1 | leader killed | 1 | 42 |" in page.read_text()
