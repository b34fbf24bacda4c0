"""Rules and dashboards speak of metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from bridge.runtime.consumer_metrics import ConsumerMetrics
from bridge.runtime.metrics import IngressMetrics
from consumers.read_model.metrics import ReadModelMetrics
from tests.chart.rendering import CASES, CHART, render

RULES = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
# What Prometheus puts on every series of a pod.
OF_THE_SCRAPE = {"namespace", "pod", "container", "job", "instance", "endpoint", "le"}


def known() -> dict[str, set[str]]:
    """Name of each series to the labels that it has."""
    found: dict[str, set[str]] = {}
    registry, other = CollectorRegistry(), CollectorRegistry()
    IngressMetrics(registry)
    ConsumerMetrics(other, service="read_model")
    ReadModelMetrics(other)
    for each in (registry, other):
        for name, collector in each._names_to_collectors.items():
            labels = collector._labelnames if isinstance(collector, MetricWrapperBase) else ()
            found.setdefault(name, set()).update(labels)
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = [panel for board in DASHBOARDS.values() for panel in board["panels"]]
    return [rule["expr"] for rule in rules()] + [each["expr"] for panel in panels for each in panel.get("targets", [])]


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_speaks_of_what_there_is(expression: str) -> None:
    series = known()
    names = set(re.findall(r"\bdrxbridge_\w+", expression))
    used = [
        set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", inside)) for inside in re.findall(r"\{([^}]*)\}", expression)
    ]
    used += [
        set(re.findall(r"\w+", inside))
        for inside in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", expression)
    ]

    assert names
    assert names - set(series) == set()
    labels = set().union(*(series[name] for name in names)) | OF_THE_SCRAPE
    assert set().union(*used) - labels == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_is_wrong(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    spoken = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert spoken <= set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))


def test_the_rules_are_those_of_the_file() -> None:
    assert render(CASES["operator-monitoring"]).one("PrometheusRule")["spec"] == RULES


def test_dashboards_are_those_of_the_files() -> None:
    found = [
        json.loads(text)
        for each in render(CASES["minimal"]).all("ConfigMap")
        if "grafana_dashboard" in each["metadata"]["labels"]
        for text in each["data"].values()
    ]

    assert found == [DASHBOARDS[name] for name in sorted(DASHBOARDS)]
    assert len({board["uid"] for board in found}) == len(found) > 0


def test_monitors_meet_a_port_of_the_pods() -> None:
    for case, kind, key in (
        ("pod-monitors", "PodMonitor", "podMetricsEndpoints"),
        ("operator-monitoring", "ServiceMonitor", "endpoints"),
    ):
        rendered = render(CASES[case])
        monitors = rendered.all(kind)
        assert len(monitors) == 2
        for monitor in monitors:
            assert [each["port"] for each in monitor["spec"][key]] == ["management"]
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            targets = rendered.all("Service") if kind == "ServiceMonitor" else [pod for _, pod in rendered.pods()]
            assert len([each for each in targets if wanted <= each["metadata"]["labels"].items()]) == 1
