"""The rendered objects pass the schemas of Kubernetes and of the operators, and checkov."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests import snippets
from tests.chart.rendering import CASES, CHART, Object, load, merged, render
from tests.chart.tools import python
from tests.integration.proxies import find
from tests.node import node_script

HERE = Path(__file__).parent
# The oldest that the chart allows, one that is in wide use, and the newest that the schemas know.
VERSIONS = ["1.30", "1.34", "1.37"]
OPERATORS = {
    "external-secrets.io",
    "gateway.networking.k8s.io",
    "grafana.integreatly.org",
    "kafka.strimzi.io",
    "keda.sh",
    "monitoring.coreos.com",
    "networking.istio.io",
}
RECIPES = re.findall(
    r"```yaml\n(.*?)```",
    snippets.CHART_PAGE.read_text().partition("## Keep a source on one pod\n")[2].partition("\n## ")[0],
    re.DOTALL,
)


def is_of_an_operator(each: Object) -> bool:
    return str(each["apiVersion"]).partition("/")[0] in OPERATORS


@pytest.fixture(scope="module")
def objects() -> list[tuple[str, Object]]:
    """Every object that any case makes, with where it comes from first."""
    found: dict[str, tuple[str, Object]] = {}
    for case, path in CASES.items():
        for each in render(path).objects:
            found.setdefault(json.dumps(each), (f"{case}: {each['kind']}/{each['metadata']['name']}", each))
    return list(found.values())


def judged_by_kubernetes(objects: list[tuple[str, Object]]) -> list[str]:
    result = subprocess.run(  # noqa: S603 - our own script
        [python(), str(HERE / "validate_core.py")],
        input=json.dumps({"versions": VERSIONS, "objects": objects}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def judged_by_operators(objects: list[Object]) -> list[Any]:
    result = subprocess.run(  # noqa: S603 - our own script
        node_script(HERE / "npm", "chart"), input=json.dumps(objects), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found: list[Any] = json.loads(result.stdout)
    return found


def test_kubernetes_takes_every_object_of_its_own(objects: list[tuple[str, Object]]) -> None:
    own = [(where, each) for where, each in objects if not is_of_an_operator(each)]

    assert judged_by_kubernetes(own) == []
    assert len(own) > 60


def test_operators_take_every_object_of_theirs(objects: list[tuple[str, Object]]) -> None:
    theirs = [each for _, each in objects if is_of_an_operator(each)]

    assert [each for each in judged_by_operators(theirs) if each] == []
    assert {each["kind"] for each in theirs} == {
        *("ExternalSecret", "GrafanaDashboard", "HTTPRoute", "KafkaTopic", "KafkaUser", "PodMonitor"),
        *("PrometheusRule", "ScaledObject", "ServiceMonitor", "TriggerAuthentication"),
    }


def test_recipes_that_keep_a_source_on_one_pod_name_what_is_there() -> None:
    gateway, istio, cilium = [render(merged(load("minimal"), yaml.safe_load(text))) for text in RECIPES]

    assert (
        gateway.one("BackendTrafficPolicy")["spec"]["targetRefs"][0]["name"]
        == (gateway.one("HTTPRoute")["metadata"]["name"])
    )
    rule = istio.one("DestinationRule")
    assert judged_by_operators([rule]) == [None]
    service = next(each["metadata"] for each in istio.all("Service") if each["spec"].get("type") == "ClusterIP")
    assert rule["spec"]["host"] == f"{service['name']}.{service['namespace']}.svc.cluster.local"
    envoy = cilium.one("CiliumEnvoyConfig")["spec"]
    assert envoy["services"] == [{"name": service["name"], "namespace": service["namespace"]}]
    assert envoy["resources"][2]["name"] == f"{service['namespace']}/{service['name']}"


def test_haproxy_takes_its_samples_and_finds_the_pods(tmp_path: Path) -> None:
    text = snippets.haproxy(snippets.CHART_PAGE)
    pods = render(load("minimal")).one("StatefulSet")
    for number in range(pods["spec"]["replicas"]):
        assert f" {pods['metadata']['name']}-{number}.{pods['spec']['serviceName']}:8080 port 9090" in text
    # The chart's page has the sample of the operating page, with other servers.
    assert snippets.haproxy().partition("    default-server")[0] in text
    program = find("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed: `make fault-tools` as root on a Debian, or install it by hand")
    config = tmp_path / "haproxy.cfg"
    defaults = "    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
    config.write_text(f"defaults\n{defaults}frontend public\n    bind 127.0.0.1:1\n    default_backend bridge\n{text}")
    checked = subprocess.run([program, "-c", "-f", config], capture_output=True, text=True, check=False)  # noqa: S603 - as above

    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_checkov_finds_nothing(objects: list[tuple[str, Object]], tmp_path: Path) -> None:
    (tmp_path / "objects.yaml").write_text("\n---\n".join(json.dumps(each) for _, each in objects))
    # What it skips stands there and on the pod of `helm test`, each with its reason.
    settings = ["--config-file", str(CHART / ".checkov.yaml"), "--framework", "kubernetes"]
    command = [python(), "-m", "checkov.main", "--directory", str(tmp_path), *settings]
    result = subprocess.run(  # noqa: S603 - our own command line
        [*command, "--quiet", "--compact", "--soft-fail", "--skip-download", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)

    assert report["summary"]["passed"] > 1000
    assert (report["summary"]["parsing_errors"], report["results"]["failed_checks"]) == (0, [])
    assert report["summary"]["failed"] == 0
