"""Topics and users of Kafka, by a Job or by Strimzi, exist before the pods that need them."""

import pytest

from bridge.kafka.admin import topic_specs
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, RoutingTable
from tests.chart.rendering import CASES, Object, Rendered, changed, load, notes, render


@pytest.fixture(scope="module")
def strimzi() -> Rendered:
    return render(CASES["strimzi"])


def weight(each: Object) -> int:
    return int(each["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_a_job_makes_the_topics_before_the_job_that_asks_for_them() -> None:
    found = render(load("full"))
    topics, init = found.one("Job", "-topics"), found.one("Job", "-read-model-init")

    assert topics["metadata"]["annotations"]["helm.sh/hook"] == init["metadata"]["annotations"]["helm.sh/hook"]
    for kind in ("NetworkPolicy", "ServiceAccount"):
        assert weight(found.one(kind, "-topics")) < weight(topics) < weight(init)
    (container,) = topics["spec"]["template"]["spec"]["containers"]
    command = "drx-bridge topics create --actor=helm --replication-factor=5 --min-insync-replicas=3"
    assert container["command"] == command.split()
    partitions = [{"name": "BRIDGE_KAFKA__PARTITIONS", "value": "7"}]
    values = changed(changed(load("minimal"), "topicsJob.enabled", True), "ingress.extraEnv", partitions)  # noqa: FBT003 - a value
    certified = changed(load("mutual-tls"), "topicsJob.enabled", True)  # noqa: FBT003 - a value
    for case, place, secret in ((certified, 1, "drx-ingress-certificate"), (values, 0, "drx-ingress-kafka")):
        pod = render(case).one("Job", "-topics")["spec"]["template"]["spec"]
        assert pod["volumes"][place]["secret"]["secretName"] == secret
    assert [each for each in pod["containers"][0]["env"] if each["name"] == "BRIDGE_KAFKA__PARTITIONS"] == partitions


def test_topics_of_strimzi_are_those_of_the_contract() -> None:
    values = changed(load("strimzi"), "kafka.routes", {"alert.*": "site.Alerts_1", "epcs.*": "drx.accounts.v1"})
    found = {each["spec"]["topicName"]: each for each in render(values).all("KafkaTopic")}
    specs = topic_specs(
        RoutingTable(values["kafka"]["routes"]).topics, partitions=12, replication_factor=3, message_max_bytes=2_097_152
    )

    assert sorted(each["spec"]["topicName"] for each in render(values).all("KafkaTopic")) == sorted(found)
    assert found.keys() == {spec.name for spec in specs}
    assert found["site.Alerts_1"]["metadata"]["name"] == "site.alerts-1"
    assert not render(changed(values, "strimzi.topics", False)).all("KafkaTopic")  # noqa: FBT003 - a value
    for spec in specs:
        each = found[spec.name]
        assert {name: str(value) for name, value in each["spec"]["config"].items()} == spec.configs
        assert (each["spec"]["partitions"], each["spec"]["replicas"]) == (spec.partitions, spec.replication_factor)
        # Strimzi deletes a topic with its object, and Helm deletes what a release made.
        assert each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert each["metadata"]["labels"]["strimzi.io/cluster"] == "events"


def test_each_component_has_a_user_with_the_acls_that_it_needs(strimzi: Rendered) -> None:
    def allowed(suffix: str) -> dict[tuple[str, str], set[str]]:
        acls = strimzi.one("KafkaUser", suffix)["spec"]["authorization"]["acls"]
        return {(each["resource"]["type"], each["resource"]["name"]): set(each["operations"]) for each in acls}

    def reads(group: str, *topics: str) -> dict[tuple[str, str], set[str]]:
        return {each: {"Describe", "Read"} for each in [("group", group), *(("topic", topic) for topic in topics)]}

    written = {"Describe", "DescribeConfigs", "Read", "Write"}
    assert allowed("-ingress") == {("topic", topic): written for topic in RoutingTable().topics}
    assert allowed("-second") == reads("read_model.read_model_2", PRESCRIPTIONS_TOPIC)
    assert allowed("-read-model") == reads("read_model", PRESCRIPTIONS_TOPIC, ACCOUNTS_TOPIC)
    assert len(strimzi.all("KafkaUser")) == 3


@pytest.mark.parametrize(
    ("suffix", "kind", "user"),
    [
        ("-ingress", "StatefulSet", "-ingress"),
        ("-second", "Deployment", "-second"),
        ("-second-init-", "Job", "-second"),
    ],
)
def test_a_pod_logs_in_by_the_secret_of_its_user(strimzi: Rendered, suffix: str, kind: str, user: str) -> None:
    """Such a Secret has a password and no name: that is the object's."""
    (found,) = (each for each in strimzi.all(kind) if suffix in each["metadata"]["name"])
    template = found["spec"]["template"]
    (volume,) = (each for each in template["spec"]["volumes"] if each["name"] == "kafka")
    secret, name = volume["projected"]["sources"]

    assert secret["secret"]["name"] == strimzi.one("KafkaUser", user)["metadata"]["name"]
    assert [each["path"] for each in secret["secret"]["items"]] == ["password"]
    (item,) = name["downwardAPI"]["items"]
    assert item["path"] == "username"
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['drx-bridge/kafka-user']"
    assert template["metadata"]["annotations"]["drx-bridge/kafka-user"] == secret["secret"]["name"]


def test_a_user_without_a_password_logs_in_by_its_certificate() -> None:
    values = changed(load("strimzi"), "consumers.second.kafka", {"clientCertificateSecret": "drx-own"})
    found = render(changed(values, "kafka.securityProtocol", "SSL"))
    user, template = found.one("KafkaUser", "-ingress"), found.one("StatefulSet")["spec"]["template"]
    volumes = {each["name"]: each for each in template["spec"]["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in template["spec"]["containers"][0]["volumeMounts"]}
    secret = volumes["kafka-client"]["secret"]

    assert (user["spec"]["authentication"], secret["secretName"]) == ({"type": "tls"}, user["metadata"]["name"])
    assert {each["key"]: each["path"] for each in secret["items"]} == {"user.crt": "tls.crt", "user.key": "tls.key"}
    assert not [each for each in found.all("KafkaUser") if "second" in each["metadata"]["name"]]
    settings = found.one("ConfigMap", "drx-bridge-ingress")["data"]
    assert settings["BRIDGE_KAFKA__SSL_KEYFILE"] == f"{mounts['kafka-client']}/tls.key"
    assert "drx-bridge/kafka-user" not in template["metadata"]["annotations"]
    by_password = [
        render(changed(values, "kafka.securityProtocol", f"SASL_{each}")).text for each in ("SSL", "PLAINTEXT")
    ]
    for each in ("scram-sha-512", "drx-bridge/kafka-user: ", "_KAFKA__SASL_MECHANISM: "):
        assert by_password[0].count(each) == by_password[1].count(each) > 0


def test_tables_are_made_within_the_release_where_their_user_comes_with_it(strimzi: Rendered) -> None:
    """Before an install there would be no user yet, and the Job would wait for it for ever."""
    jobs = strimzi.all("Job")

    assert len(jobs) == 2
    for each in (*jobs, *strimzi.all("NetworkPolicy")):
        assert "helm.sh/hook" not in each["metadata"].get("annotations", {})
    assert {each["spec"]["activeDeadlineSeconds"] for each in jobs} == {3600}
    other = render(changed(load("strimzi"), "consumerDefaults.serviceAccount", {"create": True}))
    assert "helm.sh/hook" not in str(other.all("ServiceAccount"))
    # A Job cannot be changed, so another one has another name.
    assert not {each["metadata"]["name"] for each in jobs} & {each["metadata"]["name"] for each in other.all("Job")}


def test_the_notes_sign_a_test_call_for_a_sandbox_source_only() -> None:
    real = {"profile": "drx_standard", "environment": "production", "existingSecret": "drx-webhook"}
    only = changed(load("minimal"), "ingress.sources", {"drx": real})
    both = changed(only, "ingress.sources.try", {**real, "environment": "sandbox", "existingSecret": "drx-try"})
    production, sandbox = notes(only), notes(both)

    assert "/webhooks/drx  (inside the cluster only)" in production
    assert "simulate" not in production
    assert "get secret" not in production
    assert "get secret drx-try " in sandbox
    assert "simulate --url http://127.0.0.1:8080/webhooks/try " in sandbox
    assert "get secret drx-webhook" not in sandbox


def test_the_test_sends_as_the_first_source_that_takes_what_it_sends() -> None:
    native = load("minimal")["ingress"]["sources"]["drx"]
    native["scheme"] = "standard_webhooks"
    clinic = {**native, "environment": "sandbox", "profile": "dosespot_push", "scheme": "dosespot"}
    vendor = changed(load("minimal"), "ingress.sources", {"clinic": clinic})
    both = changed(changed(vendor, "ingress.sources.drx", native), "ingress.sources.last", native)

    for values, source in ((both, "drx"), (load("two-senders"), "drx_trial")):
        (container,) = render(values).one("Pod")["spec"]["containers"]
        assert [each for each in container["command"] if each.endswith(f"/webhooks/{source}")]
    assert render(vendor).all("Pod") == []
    of_both, of_vendor = notes(both), notes(vendor)
    assert "simulate" not in of_both + of_vendor
    assert ("helm test" in of_both, "helm test" in of_vendor) == (True, False)
