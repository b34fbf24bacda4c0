"""Properties of every pod and object of the chart, in each set of values."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.rendering import CASES, NAMESPACE, Object, Rendered, changed, load, render
from tests.chart.tools import ROOT

WORKLOADS = {"StatefulSet", "Deployment"}


def workloads(rendered: Rendered) -> Iterator[Object]:
    for kind in WORKLOADS:
        yield from rendered.all(kind)


def container(workload: Object) -> Object:
    """The one of ours, which comes first."""
    return dict(workload["spec"]["template"]["spec"]["containers"][0])


@pytest.fixture(scope="module", params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(CASES[request.param])


def test_pods_keep_to_what_checkov_does_not_ask(rendered: Rendered) -> None:
    for name, pod in rendered.pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        # A Service named `bridge` would be injected as BRIDGE_PORT.
        assert spec["enableServiceLinks"] is False, name
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, name


def test_secrets_are_folders(rendered: Rendered) -> None:
    """That they are no variables is checked by checkov."""
    for name, pod in rendered.pods():
        for each in pod["spec"]["containers"]:
            assert not [mount for mount in each.get("volumeMounts", []) if "subPath" in mount], name
        for volume in pod["spec"].get("volumes", []):
            # The group of the pod may read; the spool refuses a key that others may.
            mounted = volume.get("secret", volume.get("projected"))
            assert mounted is None or mounted["defaultMode"] == 0o440, name
    assert not rendered.all("Secret")


def test_every_volume_is_mounted_and_every_mount_has_a_volume(rendered: Rendered) -> None:
    for workload in workloads(rendered):
        spec = workload["spec"]["template"]["spec"]
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        volumes = [volume["name"] for volume in spec["volumes"]] + claims
        mounts = [mount["name"] for mount in container(workload)["volumeMounts"]]
        assert sorted(volumes) == sorted(mounts)
        assert len(set(mounts)) == len(mounts)


def test_another_setting_is_another_sum() -> None:
    values = load("minimal")
    changed = values | {"ingress": values["ingress"] | {"log": {"level": "warning"}}}
    before, after = (render(each).one("StatefulSet")["spec"]["template"]["metadata"] for each in (values, changed))

    assert before["annotations"] != after["annotations"]


def test_selectors_meet_their_pods_and_no_others(rendered: Rendered) -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in rendered.pods()}
    for workload in workloads(rendered):
        own = f"{workload['kind']}/{workload['metadata']['name']}"
        wanted = workload["spec"]["selector"]["matchLabels"].items()
        assert [name for name, found in labels.items() if wanted <= found.items()] == [own]
    for service in rendered.all("Service"):
        wanted = service["spec"]["selector"].items()
        (name,) = (name for name, found in labels.items() if wanted <= found.items())
        ports = {each["name"] for each in container(named(rendered, name))["ports"]}
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports


def named(rendered: Rendered, name: str) -> Object:
    (found,) = (each for each in rendered.objects if f"{each['kind']}/{each['metadata']['name']}" == name)
    return found


def test_names_are_distinct_short_enough_and_in_the_namespace(rendered: Rendered) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in rendered.objects]
    assert len(set(names)) == len(names)
    assert {each["metadata"]["namespace"] for each in rendered.objects} == {NAMESPACE}


@pytest.mark.parametrize(("name", "expected"), [("hub", "drx-hub-ingress"), ("rx", "drx-ingress")])
def test_a_name_that_the_release_has_too_is_not_repeated(name: str, expected: str) -> None:
    assert render(changed(load("minimal"), "nameOverride", name)).one("StatefulSet")["metadata"]["name"] == expected


def test_without_a_spool_a_pod_goes_when_its_successor_is_ready() -> None:
    spec = render(load("no-spool")).one("Deployment", "-ingress")["spec"]
    volumes = {each["name"]: each for each in spec["template"]["spec"]["volumes"]}

    assert spec["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert volumes["data"]["emptyDir"] == {"sizeLimit": "16Mi"}
    assert "spool-keys" not in volumes


def test_the_longest_names_still_fit() -> None:
    values = load("full")
    values |= {"fullnameOverride": "", "nameOverride": "a" * 36}
    found = render(values)

    # A StatefulSet's pods carry its name and a hash of eleven characters in a label; all else is a label or a host.
    assert max(len(each["metadata"]["name"]) for each in found.objects) <= 63
    assert max(len(each["metadata"]["name"]) for each in workloads(found)) <= 63 - 11


def test_everything_is_denied_and_each_component_has_what_it_needs(rendered: Rendered) -> None:
    policies = rendered.all("NetworkPolicy")
    (deny,) = (each for each in policies if each["metadata"]["name"].endswith("-default-deny"))
    assert set(deny["spec"]) == {"podSelector", "policyTypes"}
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    policies.remove(deny)
    for name, pod in rendered.pods():
        found = pod["metadata"]["labels"].items()
        assert deny["spec"]["podSelector"]["matchLabels"].items() <= found, name
        own = [each for each in policies if each["spec"]["podSelector"]["matchLabels"].items() <= found]
        assert len(own) == 1, name
        assert all(rule.get("ports") for rule in own[0]["spec"].get("ingress", []) + own[0]["spec"]["egress"]), name


def test_what_runs_before_all_else_may_talk_already() -> None:
    """In a namespace that denies by default a hook's pod reaches nothing until its policy is there."""
    found = render(load("minimal"))
    own, before = (found.one(kind, "-init")["metadata"]["annotations"] for kind in ("Job", "NetworkPolicy"))

    assert before["helm.sh/hook"] == own["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(before["helm.sh/hook-weight"]) < int(own["helm.sh/hook-weight"])
    without = render(changed(load("minimal"), "consumers.read_model.init", {"enabled": False}))
    assert "read-model-init" not in without.text
    # A hook is no part of the release: without this its policy would outlive it.
    assert "hook-succeeded" in before["helm.sh/hook-delete-policy"].split(",")


def test_each_consumer_is_pruned_beside_itself_and_the_read_model_alone_compared() -> None:
    values = load("minimal")
    own = {"egress": [{"ports": [{"port": 8443}]}], "init": {"postgresSecret": "drx-owner"}}
    reader = values["consumers"]["read_model"] | own
    values["consumers"] = {"read_model": {"enabled": False}, "my_model": {**reader, "name": "read_model"}}
    values["consumers"]["archive"] = reader | {"enabled": True, "options": {"root": "/lake"}, "init": {}}
    values["prune"] = {"enabled": True}
    values["compare"] = {"enabled": True, "args": ["/x.ndjson", "--mapping", "drx_standard"]}
    found = render(values)

    jobs = {each["metadata"]["name"]: each["spec"]["jobTemplate"]["spec"]["template"] for each in found.all("CronJob")}
    assert {name: each["spec"]["containers"][0]["command"] for name, each in jobs.items()} == {
        "drx-drx-bridge-archive-prune": ["drx-consumer", "prune", "archive", "--older-than=400d", "--actor=helm"],
        "drx-drx-bridge-my-model-prune": ["drx-consumer", "prune", "read_model", "--older-than=400d", "--actor=helm"],
        "drx-drx-bridge-my-model-compare": ["drx-consumer", "compare", *values["compare"]["args"]],
    }
    for name, each in jobs.items():
        secret = values["consumers"]["archive"]["postgres"]["existingSecret"] if "archive" in name else "drx-owner"
        assert f"'secretName': '{secret}'" in str(each["spec"]["volumes"])
    for each in (found, render(changed(values, "compare.enabled", False))):  # noqa: FBT003 - a value
        for name in ("archive", "my-model"):
            rules = str(each.one("NetworkPolicy", f"-{name}-cron")["spec"]["egress"])
            assert ("8443" in rules, "5432" in rules) == (True, True)
    compared = render(changed(values, "prune.enabled", False)).all("NetworkPolicy")  # noqa: FBT003 - as above
    assert sum(each["metadata"]["name"].endswith("-cron") for each in compared) == 1


def test_consumers_reach_the_database_and_the_ingress_does_not() -> None:
    values = changed(load("minimal"), "ingress.spool.drainClaims", ["data-drx-drx-bridge-ingress-9"])
    found = render(changed(values, "kafka.bootstrapServers", "a:9093,b:9093,c:9094"))

    def reached(suffix: str) -> set[Any]:
        policy = found.one("NetworkPolicy", suffix)
        return {each["port"] for rule in policy["spec"]["egress"] for each in rule["ports"]}

    assert reached("-ingress") == {53, 9093, 9094}
    assert reached("-read-model") == reached("-read-model-init") == {53, 9093, 9094, 5432}
    assert (reached("-drain"), reached("-test")) == ({53, 9093, 9094}, {53, "http"})


def test_a_stop_fits_into_the_grace_of_the_pod(rendered: Rendered) -> None:
    for workload in workloads(rendered):
        grace_s = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        sleep_s = container(workload).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        settings = rendered.one("ConfigMap", workload["metadata"]["name"])["data"]
        (own,) = (float(value) for name, value in settings.items() if name.endswith("SHUTDOWN__GRACE_S"))
        assert own + sleep_s == grace_s
        assert ("ingress" in workload["metadata"]["name"]) == (sleep_s >= 5)


def test_the_patch_of_the_operating_page_has_the_pods_of_a_consumer_wait(rendered: Rendered) -> None:
    """It takes out of the container what would start, or end, the process that must not run."""
    (text,) = re.findall(r"--patch '(\{.*?\})'", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    (patch,) = json.loads(text)["spec"]["template"]["spec"]["containers"]
    for deployment in rendered.all("Deployment"):
        each = container(deployment)
        if each["command"][0] == "drx-consumer":
            assert each["name"] == patch["name"]
            assert {name for name in each if name.endswith("Probe")} == {name for name in patch if patch[name] is None}
            assert not {"args", "lifecycle"} & each.keys()


def test_one_kind_of_scaler_at_most(rendered: Rendered) -> None:
    scaled = [
        each["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for each in rendered.all(kind)
    ]
    assert len(set(scaled)) == len(scaled)
    for workload in workloads(rendered):
        assert ("replicas" in workload["spec"]) == (workload["metadata"]["name"] not in scaled)


def test_an_account_of_the_site_is_used_by_all() -> None:
    values = load("minimal")
    for component in (values["ingress"], values["consumers"]["read_model"]):
        component["serviceAccount"] = {"name": "site"}
        component["podSpec"] = {"automountServiceAccountToken": True}
    found = render(values)

    assert not found.all("ServiceAccount")
    for kind, suffix in (("StatefulSet", "-ingress"), ("Deployment", "-read-model"), ("Job", "-read-model-init")):
        spec = found.one(kind, suffix)["spec"]["template"]["spec"]
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("site", True)


@pytest.mark.parametrize("major", [3, 4])
def test_pods_and_workloads_are_changed_in_the_words_of_kubernetes(major: int) -> None:
    values = load("minimal")
    values["ingress"]["podSpec"] = {"securityContext": {"runAsGroup": 4712}}
    values["consumers"]["read_model"] |= {
        "podSpec": {"dnsConfig": {"nameservers": ["10.0.0.9"]}, "securityContext": {"runAsUser": 4711}},
        "podAnnotations": {"example.test/mesh": "off"},
        "extraContainers": [{"name": "proxy"}],
        "extraEnv": [{"name": "CONSUMER_LOG__LEVEL", "value": "debug"}],
        "container": {"readinessProbe": {"periodSeconds": 1}},
        "workload": {"spec": {"minReadySeconds": 7, "strategy": {"type": "Recreate", "rollingUpdate": None}}},
    }
    found = render(values, major=major)
    deployment, job = found.one("Deployment")["spec"], found.one("Job")["spec"]

    for pod in (deployment["template"], job["template"]):
        assert pod["spec"]["dnsConfig"] == {"nameservers": ["10.0.0.9"]}
        assert pod["spec"]["securityContext"].items() >= {"runAsUser": 4711, "runAsGroup": 10001}.items()
        assert pod["metadata"]["annotations"]["example.test/mesh"] == "off"
    own, once = (each["template"]["spec"]["containers"][0] for each in (deployment, job))
    assert own["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert own["readinessProbe"]["periodSeconds"] == 1
    assert "readinessProbe" not in once
    assert [each["value"] for each in once["env"] if each["name"] == "CONSUMER_LOG__LEVEL"] == ["debug"]
    assert own["resources"] == once["resources"]
    assert (deployment["minReadySeconds"], deployment["strategy"]["type"]) == (7, "Recreate")
    # To the API server the same as none.
    assert deployment["strategy"].get("rollingUpdate") is None


def test_pods_are_spread_and_those_of_jobs_are_not(rendered: Rendered) -> None:
    for workload in workloads(rendered):
        for each in workload["spec"]["template"]["spec"]["topologySpreadConstraints"]:
            assert each["labelSelector"] == workload["spec"]["selector"]
    assert not [each for each in rendered.all("Job") if "topologySpread" in str(each)]


def test_security_contexts_are_overridden_key_by_key() -> None:
    for _, pod in render(load("full")).pods():
        assert pod["spec"]["securityContext"]["fsGroupChangePolicy"] == "Always"
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
        assert pod["spec"]["containers"][0]["securityContext"]["privileged"] is False
    # OpenShift gives each namespace users of its own.
    values = {**load("minimal"), "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    for _, pod in render(values).pods():
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["spec"]["securityContext"])
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        ({"digest": "", "tag": "0.1.0"}, "", "registry.example.test/drx-bridge:0.1.0"),
        ({"tag": "0.1.0"}, "", "registry.example.test/drx-bridge:0.1.0@sha256:"),
        ({}, "mirror.example.test:5000/hub", "mirror.example.test:5000/hub/registry.example.test/drx-bridge@sha256:"),
    ],
)
def test_an_image_is_named_by_tag_or_digest_and_registry(image: dict[str, str], registry: str, expected: str) -> None:
    values = load("minimal")
    values["image"] |= {**image, "pullSecrets": ["one", "two"]}
    values["global"] = {"imageRegistry": registry, "storageClass": "of another chart"}

    for _, pod in render(values).pods():
        assert pod["spec"]["containers"][0]["image"].startswith(expected)
        assert pod["spec"]["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
        assert ("@" in pod["spec"]["containers"][0]["image"]) == (not image or "digest" not in image)
