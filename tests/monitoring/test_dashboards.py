"""Dashboards that Grafana can load, with panels that say what they show and do not lie on each other."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest

from tests.monitoring.queries import DASHBOARDS

# Links and bookmarks hold these.
UIDS = {
    "overview.json": "drx-bridge-overview",
    "ingress.json": "drx-bridge-ingress",
    "consumers.json": "drx-bridge-consumers",
    "kafka.json": "drx-bridge-kafka",
    "sinks.json": "drx-bridge-sinks",
}
# https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/#unit, those in use.
UNITS = {"s", "ops", "reqps", "short", "percentunit"}
COLUMNS = 24  # of Grafana's grid
CONFIG_MAP_MAX_BYTES = 1_048_576


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_their_names_never_change() -> None:
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == UIDS


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_board_is_whole(board: dict[str, Any]) -> None:
    panels = board["panels"]

    assert board["title"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) > 0
    assert {each["name"] for each in board["templating"]["list"]} == {"datasource", "namespace"}
    assert not [pair for pair in combinations([panel["gridPos"] for panel in panels], 2) if overlap(*pair)]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS for panel in panels)


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_panel_says_what_it_shows(board: dict[str, Any]) -> None:
    *panels, fires = board["panels"]
    assert fires["type"] == "alertlist"
    for panel in panels:
        assert panel["description"]
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


@pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
def test_a_board_begins_with_numbers_and_marks_deploys_and_outages(board: dict[str, Any]) -> None:
    first = [panel for panel in board["panels"] if panel["gridPos"]["y"] == 0]

    assert {panel["type"] for panel in first} == {"stat"}
    assert sum(panel["gridPos"]["w"] for panel in first) == COLUMNS
    for panel in first:
        # A number of now is one number.
        (target,) = panel["targets"]
        assert re.match(r"(sum|max|time\(\) - min) \(", target["expr"]), panel["title"]
    marks = {each["name"]: each["expr"] for each in board["annotations"]["list"]}
    assert marks.keys() == {"Deploys", "Outages"}
    assert 'severity="page"' in marks["Outages"]


def test_they_fit_into_config_maps() -> None:
    assert all(len(str(board)) < CONFIG_MAP_MAX_BYTES / 2 for board in DASHBOARDS.values())
