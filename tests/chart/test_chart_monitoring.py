"""Rules and dashboards are those of the chart's files, and monitors meet the pods."""

from __future__ import annotations

import json

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests.chart.rendering import CASES, CHART, load, render
from tests.chart.tools import ROOT

RULES = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}

PAGE = yaml.safe_load((ROOT / "docs" / "metrics.yaml").read_text())
# What the Prometheus operator says of a target.
OF_A_TARGET = {"job", "instance", "namespace", "service", "pod", "container", "endpoint", "node"}


def test_the_rules_are_those_of_the_file() -> None:
    assert render(CASES["operator-monitoring"]).one("PrometheusRule")["spec"] == RULES


def test_a_site_says_where_the_pages_of_the_alerts_are() -> None:
    groups = render(CASES["full"]).one("PrometheusRule")["spec"]["groups"]
    found = {rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule}

    assert {url.rpartition("/")[0] for url in found} == {load("full")["monitoring"]["runbooks"]}


def test_dashboards_are_those_of_the_files() -> None:
    found = [
        json.loads(text)
        for each in render(CASES["minimal"]).all("ConfigMap")
        if "grafana_dashboard" in each["metadata"]["labels"]
        for text in each["data"].values()
    ]

    assert found == [DASHBOARDS[name] for name in sorted(DASHBOARDS)]
    assert len({board["uid"] for board in found}) == len(found) > 0


def test_a_consumer_keeps_its_name_in_metrics() -> None:
    """By default a target's labels win: `service` would be that of Kubernetes, not the name that rules go by."""
    said = {label for each in PAGE["metrics"] for label in each.get("labels", ())}
    assert said & OF_A_TARGET == {"service"}
    for case, kind, key in (
        ("pod-monitors", "PodMonitor", "podMetricsEndpoints"),
        ("operator-monitoring", "ServiceMonitor", "endpoints"),
    ):
        for monitor in render(CASES[case]).all(kind):
            assert [each["honorLabels"] for each in monitor["spec"][key]] == [True]


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
