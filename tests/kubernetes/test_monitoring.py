"""Prometheus finds the pods by what a ServiceMonitor selects, and gets every series that the rules use."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests.chart.rendering import CHART, Rendered, template
from tests.debian import fetch, lacking
from tests.faults.alerts.servers import Prometheus, prometheus
from tests.integration.service_process import until
from tests.kubernetes.playing import timed
from tests.kubernetes.site import Release, Site
from tests.monitoring.queries import RULE_FILES

# Rules of components that the release has.
_RULES = [path for path in RULE_FILES if path.stem in {"ingress", "objectives", "consumers", "read_model"}]
_NAME = re.compile(r"\bdrx(?:bridge|_consumer)?_[a-z0-9_]+\b(?!\()")


def test_every_series_of_the_rules_is_scraped(site: Site, tmp_path: Path) -> None:
    if fetch("prometheus") is None:
        pytest.skip(lacking("prometheus"))
    with timed("K9", "Prometheus scrapes what the ServiceMonitors select"), site.release(volumes=2) as release:
        reader = {"enabled": True, "postgres": {"existingSecret": "drx-read-model-postgres"}}
        reader["init"] = {"enabled": True}
        values = release.values(ingress__replicas=2, consumers__read_model=reader)
        release.install(values, "--wait")
        # A series with the type of an event begins with the first one of it.
        assert release.post(type="prescription.unheard_of") == "accepted"
        values["monitoring"] = {"monitor": "ServiceMonitor"}
        monitors = Rendered(template(CHART, json.dumps(values), major=4)).all("ServiceMonitor")
        expected = len(release.pods()) + len(release.pods("read-model"))
        assert expected == 4

        with _proxy(release) as address:
            jobs = [_job(monitor, release, address) for monitor in monitors]
            recorded = {"groups": [group for path in _RULES for group in yaml.safe_load(path.read_text())["groups"]]}
            (tmp_path / "rules.yaml").write_text(yaml.safe_dump(recorded))
            config = {"global": {"scrape_interval": "2s", "evaluation_interval": "2s"}, "rule_files": ["rules.yaml"]}
            (tmp_path / "prometheus.yaml").write_text(json.dumps({**config, "scrape_configs": jobs}))
            with prometheus(tmp_path) as server:
                until(lambda: server.value("sum(up)") == expected, what="all pods scraped")
                names = {name for path in _RULES for name in _names(path)}

                until(lambda: not _missing(server, names), what="all series")


def _missing(server: Prometheus, names: set[str]) -> set[str]:
    return {name for name in names if server.value(f"count({name})") is None}


def _names(path: Path) -> Iterator[str]:
    for group in yaml.safe_load(path.read_text())["groups"]:
        for rule in group["rules"]:
            yield from _NAME.findall(rule["expr"])


def _job(monitor: Mapping[str, Any], release: Release, address: str) -> dict[str, Any]:
    """Find the pods as the operator does, by Services and their endpoints; they are reached through the API server."""
    objects = partial(release.site.kubernetes.objects, f"--namespace={release.namespace}")
    selector = ",".join(f"{label}={value}" for label, value in monitor["spec"]["selector"]["matchLabels"].items())
    (endpoint,) = monitor["spec"]["endpoints"]
    pods = [
        each["targetRef"]["name"]
        for service in objects("services", f"--selector={selector}")
        for found in objects("endpointslices", f"--selector=kubernetes.io/service-name={service['metadata']['name']}")
        if endpoint["port"] in {port["name"] for port in found["ports"]}
        for each in found["endpoints"]
    ]
    where = f"/api/v1/namespaces/{release.namespace}/pods/{{}}:9090/proxy{endpoint['path']}"
    labels = [{"__metrics_path__": where.format(pod), "namespace": release.namespace, "pod": pod} for pod in pods]
    return {
        "job_name": monitor["metadata"]["name"],
        "honor_labels": endpoint["honorLabels"],
        "static_configs": [{"targets": [address], "labels": each} for each in labels],
    }


@contextmanager
def _proxy(release: Release) -> Iterator[str]:
    """Run `kubectl proxy`, which knows every way to log in to a cluster; yield its address."""
    command = ["kubectl", "proxy", "--port=0"]
    environment = release.site.kubernetes.environment
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ours
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rpartition(" ")[2].strip()
        finally:
            process.terminate()
