import re
from itertools import combinations
from typing import Any

import pytest

from tests.monitoring.queries import BOARDS, DASHBOARDS, RUNBOOKS

# https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/#unit, those in use.
UNITS = {"bytes", "s", "ops", "reqps", "short", "percentunit"}
COLUMNS = 24  # of Grafana's grid


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_board_is_whole(board: dict[str, Any]) -> None:
    panels = board["panels"]

    assert board["title"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) > 0
    variables = {each["name"] for each in board["templating"]["list"]}
    targets = [each for panel in panels for each in panel.get("targets", [])]
    asked = re.findall(r"\$\{?(?!__)([a-z]+)", " ".join(each.get("expr") or each["rawSql"] for each in targets))
    assert variables == {*asked, "datasource"}
    for panel in (each for each in panels if each["type"] not in {"row", "alertlist"}):
        assert panel["description"]
        (link,) = panel["links"]
        assert link["url"] in {f"docs/runbooks/{page.stem}.md" for page in RUNBOOKS}, panel["title"]
    # A board without rows is a wall.
    assert [panel["type"] for panel in panels].count("row") >= 2
    assert not [pair for pair in combinations([panel["gridPos"] for panel in panels], 2) if overlap(*pair)]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS for panel in panels)


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    *panels, fires = board["panels"]
    assert fires["type"] == "alertlist"
    for panel in (each for each in panels if each["type"] != "row"):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"], panel["title"]
        assert len({each["refId"] for each in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            query, legend = target["expr"], target["legendFormat"]
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'namespace=~"$namespace"' in query, panel["title"]
            assert "rate(" not in query or "[$__rate_interval]" in query, panel["title"]
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query)))) | {"instance"}
            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, panel["title"]
