"""The dashboards of Grafana, from tables of panels."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from docs.monitoring.consumer_panels import CONSUMERS
from docs.monitoring.ingress_panels import INGRESS, OVERVIEW
from docs.monitoring.kafka_panels import KAFKA
from docs.monitoring.panel import Panel

# As Grafana 10.1 writes it; newer ones bring it up to date when they load it.
_SCHEMA = 39
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; its uid never changes, since links lead to it."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


BOARDS = (
    Board("drx-bridge-overview", "drx-bridge: overview", OVERVIEW),
    Board("drx-bridge-ingress", "drx-bridge: ingress", INGRESS),
    Board("drx-bridge-consumers", "drx-bridge: consumers", CONSUMERS),
    Board("drx-bridge-kafka", "drx-bridge: Kafka and spool", KAFKA),
)


def dashboard(board: Board) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": board.uid,
        "title": board.title,
        "tags": ["drx-bridge"],
        "schemaVersion": _SCHEMA,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "editable": False,
        "links": [{"type": "dashboards", "tags": ["drx-bridge"], "title": "drx-bridge", "asDropdown": True}],
        "templating": {"list": _variables()},
        "panels": [_panel(number, panel) for number, panel in enumerate(board.panels)],
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        {
            "name": "namespace",
            "type": "query",
            "label": "Namespace",
            "datasource": _SOURCE,
            "query": {"query": "label_values(drxbridge_build_info, namespace)", "refId": "namespace"},
            "refresh": 2,
            "includeAll": True,
            "allValue": ".*",
        },
    ]


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }
