"""The dashboards of Grafana, from tables of panels."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from docs.monitoring.consumer_panels import CONSUMERS
from docs.monitoring.ingress_panels import INGRESS, OVERVIEW
from docs.monitoring.kafka_panels import KAFKA
from docs.monitoring.panel import Panel
from docs.monitoring.summary import STATS, Stat, alert_list, marks

# As Grafana 10.1 writes it; newer ones bring it up to date when they load it.
_SCHEMA = 39
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_STAT_WIDTH, _STAT_HEIGHT = 4, 4
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
        "annotations": {"list": marks(_SOURCE)},
        "panels": _panels(board),
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


def _panels(board: Board) -> list[dict[str, Any]]:
    """Return a row of numbers, the graphs two by two, and at the end what fires."""
    stats = [_stat(number, stat) for number, stat in enumerate(STATS)]
    graphs = [_graph(number, panel) for number, panel in enumerate(board.panels)]
    below = _STAT_HEIGHT + -(-len(graphs) // _COLUMNS) * _HEIGHT
    fires = {**alert_list(), "gridPos": {"x": 0, "y": below, "w": _WIDTH * _COLUMNS, "h": _HEIGHT}}
    # A panel keeps its id when one of another kind is added: links name it.
    return [
        *({"id": 101 + number, **each} for number, each in enumerate(stats)),
        *({"id": 1 + number, **each} for number, each in enumerate(graphs)),
        {"id": 201, **fires},
    ]


def _stat(number: int, stat: Stat) -> dict[str, Any]:
    worse = [(at, colour) for at, colour in ((stat.warn, "yellow"), (stat.bad, "red")) if at is not None]
    steps = [{"value": at, "color": colour} for at, colour in [(None, "green"), *worse]]
    return {
        "type": "stat",
        "gridPos": {"x": number * _STAT_WIDTH, "y": 0, "w": _STAT_WIDTH, "h": _STAT_HEIGHT},
        **_panel(
            stat.panel,
            thresholds={"mode": "absolute", "steps": steps},
        ),
    }


def _graph(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    y = _STAT_HEIGHT + row * _HEIGHT
    return {
        "type": "timeseries",
        "gridPos": {"x": column * _WIDTH, "y": y, "w": _WIDTH, "h": _HEIGHT},
        **_panel(panel),
    }


def _panel(panel: Panel, **more: Any) -> dict[str, Any]:
    return {
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **more}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }
