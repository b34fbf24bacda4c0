"""A real API server takes every object, and every pod, in a namespace that enforces pod security `restricted`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from tests.chart.control_plane import Answer, ApiServer, is_built, running
from tests.chart.rendering import CASES, CHART, FILES, Object, load, merged, render
from tests.chart.test_chart_schemas import is_of_an_operator
from tests.chart.tools import helm

pytestmark = pytest.mark.skipif(not is_built(), reason="there is no API server here; `make chart-apiserver` builds one")

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with running(tmp_path_factory.mktemp("control-plane")) as found:
        yield found


def created(answer: Answer) -> None:
    assert (answer.status, answer.warnings) == (201, []), answer.document.get("message")


def a_namespace(server: ApiServer, name: str) -> str:
    """Make one with what controllers and a site would have put there."""
    metadata = {"name": name, "labels": RESTRICTED}
    created(server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    account = {"name": "default", "namespace": name}
    created(server.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}))
    return name


def pods(objects: Iterable[Object]) -> Iterator[Object]:
    """Give the pods that controllers would make."""
    for each in objects:
        template = each.get("spec", {}).get("template")
        if template is None:
            continue
        pod = deepcopy(template)
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] |= {"name": each["metadata"]["name"]}
        for claim in each["spec"].get("volumeClaimTemplates", []):
            name = claim["metadata"]["name"]
            pod["spec"]["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}})
        yield pod


def in_namespace(each: Object, namespace: str) -> Object:
    moved = deepcopy(each)
    moved["metadata"]["namespace"] = namespace
    return moved


@pytest.mark.parametrize("case", CASES)
def test_a_restricted_namespace_takes_all_of_it_without_a_warning(server: ApiServer, case: str) -> None:
    rendered = render(CASES[case])
    namespace = a_namespace(server, f"case-{case}".replace("_", "-"))
    # Those of operators need their definitions; the operators' own schemas judge them elsewhere.
    own = [each for each in rendered.objects if not is_of_an_operator(each)]
    made = list(pods(own))
    for name in {pod["spec"].get("priorityClassName") for pod in made} - {None}:
        priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1}
        created(server.create({**priority, "metadata": {"name": name}}))

    for each in (*own, *made):
        created(server.create(in_namespace(each, namespace)))
    assert made
    assert len(own) > len(made)


def test_the_server_can_say_no(server: ApiServer) -> None:
    namespace = a_namespace(server, "says-no")
    workload = in_namespace(render(load("minimal")).one("Deployment"), namespace)
    del workload["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    (pod,) = pods([workload])
    unknown = deepcopy(workload)
    unknown["spec"]["replica"] = 2

    assert ["restricted" in each for each in server.create(workload).warnings] == [True]
    assert server.create(in_namespace(pod, namespace)).status == 403
    assert server.create(unknown).status == 400


@pytest.mark.parametrize("major", [3, 4])
def test_a_larger_volume_is_had_as_the_readme_says(server: ApiServer, tmp_path: Path, major: int) -> None:
    namespace = a_namespace(server, f"larger-{major}")
    (tmp_path / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    # Its hooks would wait for pods to end, and nothing here runs one.
    options = ["--no-hooks", f"--namespace={namespace}", f"--kubeconfig={tmp_path / 'kubeconfig'}"]

    def run(verb: str, size_gi: int) -> subprocess.CompletedProcess[str]:
        command = [helm(major), verb, "drx", str(CHART), f"--values={FILES['minimal']}", *options]
        size = f"--set=ingress.spool.volume.sizeGi={size_gi}"
        return subprocess.run([*command, size], capture_output=True, text=True, check=False)  # noqa: S603 - our own command line

    path = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/drx-drx-bridge-ingress"
    installed, refused = run("install", 2), run("upgrade", 4)
    # As `--cascade=orphan` does where a garbage collector is there to see to it.
    removed = server.call("DELETE", path)
    upgraded = run("upgrade", 4)

    assert (installed.returncode, removed.status, upgraded.returncode) == (0, 200, 0), upgraded.stderr
    assert "updates to statefulset spec" in refused.stderr or "field is immutable" in refused.stderr
    (claim,) = server.call("GET", path).document["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "4Gi"


def test_a_first_install_makes_things_in_an_order_that_works(server: ApiServer, tmp_path: Path) -> None:
    """Helm waits for the Jobs of its hooks; each finds its policy and its account, and nothing that needs its work."""
    namespace = a_namespace(server, "first-install")
    (tmp_path / "kubeconfig").write_text(json.dumps(server.kubeconfig()))
    values = merged(load("minimal"), {"topicsJob": {"enabled": True}, "ingress": {"serviceAccount": {"create": True}}})
    values = merged(values, {"consumerDefaults": {"serviceAccount": {"create": True}}})
    (tmp_path / "values.json").write_text(json.dumps(values))
    options = [f"--namespace={namespace}", f"--kubeconfig={tmp_path / 'kubeconfig'}", "--timeout=90s"]
    command = [helm(4), "install", "drx", str(CHART), f"--values={tmp_path / 'values.json'}", *options]

    def names(path: str) -> set[str]:
        return {
            each["metadata"]["name"].removeprefix("drx-drx-bridge-")
            for each in server.call("GET", path.format(namespace)).document["items"]
        }

    there: dict[str, tuple[set[str], set[str], set[str]]] = {}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 - as above
        while process.poll() is None:
            for job in server.call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs").document["items"]:
                name = job["metadata"]["name"].removeprefix("drx-drx-bridge-")
                if name not in there:
                    there[name] = (
                        names("/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"),
                        names("/api/v1/namespaces/{}/serviceaccounts"),
                        names("/apis/apps/v1/namespaces/{}/deployments")
                        | names("/apis/apps/v1/namespaces/{}/statefulsets"),
                    )
                    ended(server, job)
            time.sleep(0.05)
    assert process.returncode == 0, (tmp_path / "output").read_text()

    assert list(there) == ["topics", "read-model-init"]
    for name, (policies, accounts, workloads) in there.items():
        assert name in policies
        assert name in accounts
        assert not workloads
    assert names("/apis/apps/v1/namespaces/{}/deployments") == {"read-model"}
    assert names("/apis/apps/v1/namespaces/{}/statefulsets") == {"ingress"}
    # What the hooks had is gone with them.
    assert not names("/apis/batch/v1/namespaces/{}/jobs")
    assert {"ingress", "read-model", "default"} == names("/api/v1/namespaces/{}/serviceaccounts")


def ended(server: ApiServer, job: Object) -> None:
    """Say of a Job what its controller would say at its end."""
    now = job["metadata"]["creationTimestamp"]
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    status = {"startTime": now, "completionTime": now, "succeeded": 1, "ready": 0, "conditions": conditions}
    metadata = job["metadata"]
    path = f"/apis/batch/v1/namespaces/{metadata['namespace']}/jobs/{metadata['name']}/status"
    answer = server.call("PUT", path, {**job, "apiVersion": "batch/v1", "kind": "Job", "status": status})
    assert answer.status == 200, answer.document
