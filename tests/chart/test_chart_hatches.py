"""What a site adds to pods and objects stands where it must, at every workload and at the Jobs beside it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import NAMESPACE, Object, Rendered, Values, changed, load, render

VALUES: Values = load("full")
# A workload, its values, and a Job that has the same settings.
COMPONENTS = [
    ("StatefulSet", "-ingress", VALUES["ingress"], "-drain-0"),
    ("Deployment", "-read-model", VALUES["consumerDefaults"], "-read-model-init"),
]


@pytest.fixture(scope="module")
def full() -> Rendered:
    return render(VALUES)


def pod_of(rendered: Rendered, kind: str, suffix: str) -> Object:
    return dict(rendered.one(kind, suffix)["spec"]["template"]["spec"])


@pytest.mark.parametrize(("kind", "suffix", "values", "job"), COMPONENTS)
def test_a_container_has_more_variables_and_mounts(
    full: Rendered, kind: str, suffix: str, values: Values, job: str
) -> None:
    """Also in a Job: what a consumer needs to start, it needs to make its tables."""
    for spec in (pod_of(full, kind, suffix), pod_of(full, "Job", job)):
        container = spec["containers"][0]
        assert [each for each in container["env"] if each in values["extraEnv"]] == values["extraEnv"]
        assert container["envFrom"][-1:] == values["extraEnvFrom"]
        assert container["volumeMounts"][-1:] == values["extraVolumeMounts"]
        assert [each for each in spec["volumes"] if each in values["extraVolumes"]] == values["extraVolumes"]


@pytest.mark.parametrize(("kind", "suffix", "values", "job"), COMPONENTS)
def test_a_pod_has_more_containers(full: Rendered, kind: str, suffix: str, values: Values, job: str) -> None:
    """A Job has no container that would keep it from ending."""
    assert pod_of(full, kind, suffix)["containers"][1:] == values["extraContainers"]
    assert len(pod_of(full, "Job", job)["containers"]) == 1
    for spec in (pod_of(full, kind, suffix), pod_of(full, "Job", job)):
        assert spec["initContainers"] == values["initContainers"]


@pytest.mark.parametrize(("kind", "suffix", "values", "job"), COMPONENTS)
def test_a_pod_finds_its_nodes(full: Rendered, kind: str, suffix: str, values: Values, job: str) -> None:
    for spec in (pod_of(full, kind, suffix), pod_of(full, "Job", job)):
        for name in ("affinity", "tolerations", "nodeSelector", "priorityClassName"):
            assert spec[name] == values[name]


@pytest.mark.parametrize(("kind", "suffix", "values", "job"), COMPONENTS)
def test_pods_are_spread_as_the_list_says(full: Rendered, kind: str, suffix: str, values: Values, job: str) -> None:
    first, second = pod_of(full, kind, suffix)["topologySpreadConstraints"]
    selected = {"matchLabels": full.one(kind, suffix)["spec"]["selector"]["matchLabels"]}

    assert first == {**values["topologySpreadConstraints"][0], "labelSelector": selected}
    # What is left out has the defaults of the chart.
    soft = {"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selected}
    assert second == {"topologyKey": "example.test/rack", **soft}
    assert "topologySpreadConstraints" not in pod_of(full, "Job", job)


def test_by_default_pods_are_spread_over_zones_and_nodes() -> None:
    """A constraint of one's own turns off those of Kubernetes, so one for zones alone would pile pods on a node."""
    found = render(load("minimal"))

    for kind in ("StatefulSet", "Deployment"):
        spread = pod_of(found, kind, "")["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_a_workload_is_replaced_as_the_site_says(full: Rendered) -> None:
    ingress, consumer = (values["updateStrategy"] for _, _, values, _ in COMPONENTS)

    assert full.one("StatefulSet")["spec"]["updateStrategy"] == ingress
    assert full.one("Deployment", "-read-model")["spec"]["strategy"] == consumer
    without_spool = changed(load("no-spool"), "ingress.updateStrategy", {"type": "Recreate"})
    assert render(without_spool).one("Deployment", "-ingress")["spec"]["strategy"] == {"type": "Recreate"}


def test_a_pod_has_the_service_account_that_is_made_for_it(full: Rendered) -> None:
    account = full.one("ServiceAccount", "pharmacy-ingress")

    assert account["metadata"]["annotations"] == VALUES["ingress"]["serviceAccount"]["annotations"]
    for kind, suffix in (("StatefulSet", "-ingress"), ("Job", "-drain-0")):
        assert pod_of(full, kind, suffix)["serviceAccountName"] == "pharmacy-ingress"
    assert pod_of(full, "Deployment", "-eligible")["serviceAccountName"] == "pharmacy-bridge-eligible"
    assert full.one("ServiceAccount", "-bridge-eligible")


def test_a_job_before_an_install_has_an_account_that_is_there_by_then(full: Rendered) -> None:
    name = pod_of(full, "Job", "-eligible-init")["serviceAccountName"]
    account, job = full.one("ServiceAccount", name), full.one("Job", "-eligible-init")
    hook = {each: account["metadata"]["annotations"][each] for each in ("helm.sh/hook", "helm.sh/hook-weight")}

    assert hook["helm.sh/hook"] == job["metadata"]["annotations"]["helm.sh/hook"]
    assert int(hook["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert set(VALUES["consumerDefaults"]["serviceAccount"]["annotations"]) < set(account["metadata"]["annotations"])


def test_an_account_of_the_site_is_used_by_all() -> None:
    values = load("minimal")
    for component in (values["ingress"], values["consumers"]["read_model"]):
        component["serviceAccount"] = {"name": "site", "automountToken": True}
    found = render(values)

    assert not found.all("ServiceAccount")
    for kind, suffix in (("StatefulSet", "-ingress"), ("Deployment", "-read-model"), ("Job", "-read-model-init")):
        spec = pod_of(found, kind, suffix)
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("site", True)


def test_security_contexts_are_overridden_key_by_key(full: Rendered) -> None:
    for _, pod in full.pods():
        assert pod["spec"]["securityContext"]["fsGroupChangePolicy"] == "Always"
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert pod["spec"]["containers"][0]["securityContext"]["privileged"] is False
    # OpenShift gives each namespace users of its own.
    values = {**load("minimal"), "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    for _, pod in render(values).pods():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["spec"]["securityContext"])
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_labels_stand_on_all_objects_and_pods_and_select_nothing(full: Rendered) -> None:
    wanted = VALUES["commonLabels"].items()

    for each in full.objects:
        assert each["metadata"]["name"] == "site" or wanted <= each["metadata"]["labels"].items()
    for name, pod in full.pods():
        assert wanted <= pod["metadata"]["labels"].items(), name
    for workload in (*full.all("Deployment"), *full.all("StatefulSet")):
        assert not wanted & workload["spec"]["selector"]["matchLabels"].items()


def test_the_service_is_of_the_type_that_is_wanted(full: Rendered) -> None:
    found = full.one("Service", "-ingress")

    assert found["spec"]["type"] == "LoadBalancer"
    assert found["metadata"]["annotations"] == VALUES["ingress"]["service"]["annotations"]


def test_objects_of_the_site_come_with_the_release(full: Rendered) -> None:
    assert full.one("ConfigMap", "site") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "site", "namespace": NAMESPACE},
        "data": {"release": "drx"},
    }


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        ({"digest": "", "tag": "0.1.0"}, "", "registry.example.test/drx-bridge:0.1.0"),
        ({"tag": "0.1.0"}, "", "registry.example.test/drx-bridge:0.1.0@sha256:"),
        ({}, "mirror.example.test:5000/hub", "mirror.example.test:5000/hub/registry.example.test/drx-bridge@sha256:"),
    ],
)
def test_an_image_is_named_by_tag_or_digest_and_registry(image: Values, registry: str, expected: str) -> None:
    values: dict[str, Any] = load("minimal")
    values["image"] |= image
    values["global"] = {"imageRegistry": registry, "storageClass": "of another chart"}

    for _, pod in render(values).pods():
        assert pod["spec"]["containers"][0]["image"].startswith(expected)
        assert ("@" in pod["spec"]["containers"][0]["image"]) == (not image or "digest" not in image)


def test_names_are_resolved_where_the_site_says(full: Rendered) -> None:
    def resolvers(rendered: Rendered) -> list[Any]:
        policies = [each["spec"]["egress"] for each in rendered.all("NetworkPolicy") if "egress" in each["spec"]]
        return [rules[0] for rules in policies]

    for rule in resolvers(full):
        assert {each["port"] for each in rule["ports"]} == {5353}
        assert rule["to"] == VALUES["networkPolicy"]["dns"]["to"]
    by_namespace = changed(load("minimal"), "networkPolicy.dns", {"namespace": "openshift-dns", "port": 5353})
    for rule in resolvers(render(by_namespace)):
        labels = {"kubernetes.io/metadata.name": "openshift-dns"}
        assert rule["to"] == [{"namespaceSelector": {"matchLabels": labels}}]


def test_secrets_come_from_a_store_before_the_jobs_that_mount_them(full: Rendered) -> None:
    whole, by_key = full.one("ExternalSecret", "drx-webhook"), full.one("ExternalSecret", "drx-ingress-kafka")
    wanted = VALUES["externalSecrets"]

    assert whole["spec"]["dataFrom"] == [{"extract": {"key": "pharmacy/drx/webhook"}}]
    keys = wanted["secrets"]["drx-ingress-kafka"]["keys"]
    assert {each["secretKey"]: each["remoteRef"] for each in by_key["spec"]["data"]} == keys
    for each in (whole, by_key):
        assert each["spec"]["secretStoreRef"] == wanted["storeRef"]
        assert each["spec"]["refreshInterval"] == wanted["refreshInterval"]
        assert each["spec"]["target"]["name"] == each["metadata"]["name"]
        # It is made anew by each upgrade; pods must not lose their Secret with it.
        assert each["spec"]["target"]["creationPolicy"] == "Orphan"
        assert "hook-succeeded" not in each["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    weights = {each["metadata"]["annotations"]["helm.sh/hook-weight"] for each in full.all("Job")[:1]}
    assert int(whole["metadata"]["annotations"]["helm.sh/hook-weight"]) < min(map(int, weights))
