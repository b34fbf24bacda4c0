"""Rules and dashboards are those of the chart's files, and monitors select the pods."""

import json
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from docs.metrics_page import contract
from tests.chart.rendering import CASES, CHART, changed, load, render

RULE_FILES = sorted((CHART / "files" / "rules").glob("*.yaml"))
RULES = {"groups": [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]}
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
COMPONENT = "app.kubernetes.io/component"

# What the Prometheus operator says of a target.
OF_A_TARGET = {"job", "instance", "namespace", "service", "pod", "container", "endpoint", "node"}


def test_the_rules_are_those_of_the_files() -> None:
    assert render(CASES["operator-monitoring"]).one("PrometheusRule")["spec"] == RULES


def test_no_ingress_is_missing_where_none_is_installed() -> None:
    values = changed(load("consumers-only"), "monitoring.rules", "always")
    values["ingress"] |= {each: {"enabled": True} for each in ("hpa", "kubernetesIngress")}
    found = render(values)
    text = json.dumps(found.one("PrometheusRule")["spec"])
    assert not [each for each in found.objects if each["metadata"]["labels"].get(COMPONENT) in {"ingress", "test"}]

    assert "absent_over_time" in json.dumps(RULES)
    assert "absent_over_time" not in text
    assert alerts(yaml.safe_load(text)).keys() == alerts(RULES).keys()


def alerts(rules: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                found.setdefault(rule["alert"], []).append(rule)
    return found


def test_a_site_changes_some_alerts_and_adds_its_own() -> None:
    wanted = load("full")["monitoring"]
    before, after = alerts(RULES), alerts(render(CASES["full"]).one("PrometheusRule")["spec"])
    stalled, then = after["ConsumerStuck"], before["ConsumerStuck"]

    assert before.keys() - after.keys() == {"SchemaRegistryDown"}
    assert after.keys() - before.keys() == {"PharmacyQuiet"}
    assert after["PharmacyQuiet"] == wanted["extraRules"][0]["rules"]
    assert {rule["for"] for rule in stalled} == {wanted["alerts"]["ConsumerStuck"]["for"]}
    assert [rule["expr"] for rule in stalled] == [rule["expr"] for rule in then]
    assert [rule["labels"]["severity"] for rule in after["SpoolInUse"]] == ["none"]
    changed_ones = {*wanted["alerts"], "PharmacyQuiet"}
    for name in after.keys() - changed_ones:
        for rule, old in zip(after[name], before[name], strict=True):
            assert {**rule, "annotations": None} == {**old, "annotations": None}


def test_dashboards_are_those_of_the_files() -> None:
    found = [
        json.loads(text)
        for each in render(CASES["minimal"]).all("ConfigMap")
        if "grafana_dashboard" in each["metadata"]["labels"]
        for text in each["data"].values()
    ]

    assert found == [DASHBOARDS[name] for name in sorted(DASHBOARDS)]
    assert len({board["uid"] for board in found}) == len(found) > 0


@pytest.mark.parametrize(
    ("case", "kind", "key"),
    [("pod-monitors", "PodMonitor", "podMetricsEndpoints"), ("operator-monitoring", "ServiceMonitor", "endpoints")],
)
def test_monitors_meet_a_port_of_the_pods_and_leave_consumers_their_name(case: str, kind: str, key: str) -> None:
    """By default a target's labels win: `service` would be that of Kubernetes, not the name that rules go by."""
    assert {label for each in contract()["metrics"] for label in each.get("labels", ())} & OF_A_TARGET == {"service"}
    rendered = render(CASES[case])
    monitors = rendered.all(kind)
    assert len(monitors) == 2
    for monitor in monitors:
        assert [(each["port"], each["honorLabels"]) for each in monitor["spec"][key]] == [("management", True)]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        targets = rendered.all("Service") if kind == "ServiceMonitor" else [pod for _, pod in rendered.pods()]
        assert len([each for each in targets if wanted <= each["metadata"]["labels"].items()]) == 1


def test_panels_link_to_where_the_runbooks_are() -> None:
    maps = [each for each in render(CASES["full"]).all("ConfigMap") if "-dashboard-" in each["metadata"]["name"]]
    panels = [panel for each in maps for text in each["data"].values() for panel in json.loads(text)["panels"]]
    urls = {link["url"] for panel in panels for link in panel.get("links", ())}

    assert f"{load('full')['monitoring']['runbooks']}/ConsumerStuck.md" in urls
    assert not [each for each in urls if each.startswith("docs/")]
