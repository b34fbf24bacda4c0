"""What stands above the graphs of each dashboard: numbers of now, what fires, and what happened when."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from docs.monitoring.objectives import FAST
from docs.monitoring.panel import POSTS, RATE, Panel, burn, most, series, total


@dataclass(frozen=True, slots=True)
class Stat:
    """One number; from `warn` on it is yellow, from `bad` on red, if it can be bad."""

    panel: Panel
    warn: float | None = None
    bad: float | None = None


_SERVED = f"sum (rate({series('http_requests_total', POSTS)}[{RATE}]))"
_BURN = FAST[0].factor

STATS = (
    Stat(Panel("Deliveries now", "All of them, whatever they are answered.", "reqps", {"": _SERVED})),
    Stat(
        Panel(
            "Worst budget burn",
            "Over an hour; 1 spends a budget in thirty days.",
            "short",
            {"": f"max ({burn('.*', '1h', 'slo')})"},
        ),
        1,
        _BURN,
    ),
    Stat(
        Panel(
            "On disk now",
            "Events that are durable and not in Kafka yet.",
            "short",
            {"": f"sum ({total('spool_events', 'namespace')})"},
        ),
        1,
        1000,
    ),
    Stat(
        Panel(
            "Worst lag",
            "Age of the oldest record not settled.",
            "s",
            {"": f"max ({most('consumer_lag_seconds', 'service')})"},
        ),
        60,
        300,
    ),
    Stat(
        Panel(
            "Keys parked",
            "They wait for an operator.",
            "short",
            {"": f"sum ({most('parked_keys', 'namespace, service')})"},
        ),
        1,
        100,
    ),
    Stat(
        Panel(
            "Oldest heartbeat",
            "An alert fires at 120 s.",
            "s",
            {"": f"time() - min ({series('heartbeat_last_seen_timestamp_seconds')})"},
        ),
        90,
        120,
    ),
)

# Prometheus writes a series for each alert that fires; the range in which it stands is the outage.
_PAGES = 'ALERTS{alertstate="firing",severity="page",namespace=~"$namespace"}'
_VERSIONS = f"sum by (namespace, version) ({series('build_info')})"


def marks(source: dict[str, str]) -> list[dict[str, Any]]:
    """Return what is marked on the time axis: versions that come, and alerts that page."""
    return [
        _mark(
            "Deploys",
            f"{_VERSIONS} unless {_VERSIONS.replace('})', '} offset 5m)')}",
            "{{version}} in {{namespace}}",
            "blue",
            source,
        ),
        _mark("Outages", _PAGES, "{{alertname}}", "red", source),
    ]


def alert_list() -> dict[str, Any]:
    """Return the panel of the alerts that fire or are about to."""
    return {
        "type": "alertlist",
        "title": "Alerts",
        "description": "Those that fire, and those that will if it goes on.",
        "options": {
            "viewMode": "list",
            "groupMode": "default",
            "maxItems": 20,
            "sortOrder": 3,
            "datasource": "${datasource}",
            "alertInstanceLabelFilter": '{namespace=~"$namespace"}',
            "stateFilter": {"firing": True, "pending": True, "noData": False, "normal": False, "error": True},
        },
    }


def _mark(name: str, query: str, title: str, colour: str, source: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": source,
        "enable": True,
        "iconColor": colour,
        "expr": query,
        "step": "60s",
        "titleFormat": title,
    }
