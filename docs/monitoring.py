"""The consumers' parts of the chart's rules and dashboards; the other files are written by hand."""
# ruff: noqa: INP001 - a script next to its pages, not a package

import json
from collections.abc import Sequence
from typing import Any

from docs.chart_page import CHART, pretty
from docs.folders import Folder, folders

_NOTE = "# A copy of consumers/{name}/alerts.yaml by `python docs/generate.py`; do not edit.\n"
# Of Grafana's grid, as on the other dashboards.
_WIDTH, _HEIGHT, _COLUMNS, _STATS_HEIGHT = 12, 8, 2, 4
# Default runbook of a graph: the alert of an unavailable sink.
_RUNBOOK = "SinkCircuitOpen"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rule_files(found: Sequence[Folder] | None = None) -> dict[str, str]:
    """Return the rules of the consumers by file name: copies, since a chart must contain its files."""
    texts = {
        each.name: (each.path / "alerts.yaml").read_text(encoding="utf-8")
        for each in (folders() if found is None else found)
        if (each.path / "alerts.yaml").is_file()
    }
    return {f"{name}.yaml": _NOTE.format(name=name) + text for name, text in texts.items()}


def sinks(found: Sequence[Folder] | None = None) -> str:
    """Return the dashboard with a row per consumer, in the frame of the dashboard of all consumers."""
    board = json.loads((CHART / "files" / "dashboards" / "consumers.json").read_text(encoding="utf-8"))
    panels = [each for each in board["panels"] if each["type"] == "stat"]
    y = _STATS_HEIGHT
    for folder in folders() if found is None else found:
        if graphs := folder.read("panels.yaml"):
            panels.append(_row(len(panels), y, folder.name))
            first = len(panels)
            panels += [_graph(first + place, place, y + 1, each) for place, each in enumerate(graphs)]
            y += 1 + -(-len(graphs) // _COLUMNS) * _HEIGHT
    fires = board["panels"][-1]
    fires["gridPos"]["y"] = y
    board |= {"uid": "drx-bridge-sinks", "title": "drx-bridge: sinks", "panels": [*panels, fires]}
    return pretty(board) + "\n"


def _row(number: int, y: int, title: str) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": _WIDTH * _COLUMNS, "h": 1}
    return {"id": number, "type": "row", "gridPos": place, "title": title, "collapsed": False, "panels": []}


def _graph(number: int, place: int, top: int, panel: dict[str, Any]) -> dict[str, Any]:
    row, column = divmod(place, _COLUMNS)
    y = top + row * _HEIGHT
    runbook = panel.get("runbook", _RUNBOOK)
    return {
        "id": number,
        "type": "timeseries",
        "gridPos": {"x": column * _WIDTH, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "title": panel["title"],
        "description": panel["text"],
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, query) in enumerate(panel["queries"].items())
        ],
        "links": [{"title": runbook, "url": f"docs/runbooks/{runbook}.md", "targetBlank": True}],
    }
