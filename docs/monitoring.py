"""What the folders of the consumers add to the chart's rules and dashboards, which are files written by hand else."""
# ruff: noqa: INP001 - a script beside its pages, no package

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from docs.chart_page import CHART, pretty
from docs.folders import Folder, folders

_NOTE = "# A copy of consumers/{name}/alerts.yaml by `python docs/generate.py`; do not edit.\n"
# Of Grafana's grid, as on the other dashboards.
_WIDTH, _HEIGHT, _COLUMNS, _STATS_HEIGHT = 12, 8, 2, 4
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rule_files(found: Sequence[Folder] | None = None) -> dict[str, str]:
    """Return the rules of the consumers by file name: copies, since a chart has its files within itself."""
    texts = {
        each.name: (each.path / "alerts.yaml").read_text(encoding="utf-8")
        for each in (folders() if found is None else found)
        if (each.path / "alerts.yaml").is_file()
    }
    return {f"{name}.yaml": _NOTE.format(name=name) + text for name, text in texts.items()}


def sinks(found: Sequence[Folder] | None = None) -> str:
    """Return the dashboard of what single consumers measure, in the frame of the one of all consumers."""
    board = json.loads((CHART / "files" / "dashboards" / "consumers.json").read_text(encoding="utf-8"))
    frame = [each for each in board["panels"] if each["type"] != "timeseries"]
    panels = [panel for each in (folders() if found is None else found) for panel in each.read("panels.yaml") or ()]
    graphs = [_graph(number, panel) for number, panel in enumerate(panels)]
    frame[-1]["gridPos"]["y"] = _STATS_HEIGHT + -(-len(graphs) // _COLUMNS) * _HEIGHT
    board |= {"uid": "drx-bridge-sinks", "title": "drx-bridge: sinks", "panels": [*frame[:-1], *graphs, frame[-1]]}
    return pretty(board) + "\n"


def _graph(number: int, panel: dict[str, Any]) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    y = _STATS_HEIGHT + row * _HEIGHT
    return {
        "id": 1 + number,
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
    }
