"""The rule file of Prometheus, for the chart and for any other Prometheus alike."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from docs.monitoring.alert import Alert
from docs.monitoring.consumer_alerts import progress_alerts, trouble_alerts
from docs.monitoring.ingress_alerts import delivery_alerts, durability_alerts, objective_alerts, upkeep_alerts
from docs.monitoring.objectives import recordings


def alerts() -> list[Alert]:
    """Return every alert, in the order of the file."""
    return [each for group in _groups().values() for each in group]


def thresholds() -> dict[str, str]:
    """Return the number of each alert that a site may change; the chart does so."""
    return {each.name: each.threshold for each in alerts() if each.threshold}


def rules() -> dict[str, Any]:
    """Return the rule file."""
    recorded = {"name": "drx-bridge-objectives", "rules": recordings()}
    return {
        "groups": [
            recorded,
            *(
                {"name": f"drx-bridge-{name}", "rules": [each.rule() for each in group]}
                for name, group in _groups().items()
            ),
        ]
    }


def _groups() -> dict[str, Sequence[Alert]]:
    return {
        "budgets": objective_alerts(),
        "deliveries": delivery_alerts(),
        "durability": durability_alerts(),
        "upkeep": upkeep_alerts(),
        "consumers": [*progress_alerts(), *trouble_alerts()],
    }
