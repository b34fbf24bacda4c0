"""A shipped or custom consumer runs with the chart by its key, its options and the objects they name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from consumers.options import EndpointOptions, read_options
from consumers.read_model.options import ReadModelOptions
from consumers.settings import load_settings
from docs.chart_page import chart_values
from docs.folders import Folder, folders
from docs.metrics_page import metrics_page
from docs.monitoring import rule_files, sinks
from docs.settings_page import options_of
from tests.chart.rendering import changed, load, render, variables
from tests.installed import install

SHIPPED = folders()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_consumer_that_ships_reads_the_options_of_its_example(folder: Folder, clean: pytest.MonkeyPatch) -> None:
    rendered = render(load(folder.name))
    for name, value in variables(rendered, rendered.one("Deployment")["spec"]["template"], pod_name="pod-0").items():
        clean.setenv(name, value)
    options = read_options(options_of(folder.name), folder.name, load_settings([folder.name]).options(folder.name))

    # What scales it, and what it may read, by its own account.
    group = options.group(folder.name) if isinstance(options, EndpointOptions) else options.group  # type: ignore[attr-defined]  # those with a schema
    triggers = [each["metadata"] for each in rendered.one("ScaledObject")["spec"]["triggers"]]
    assert {each["consumerGroup"] for each in triggers} == {group}
    assert {each["topic"] for each in triggers} == set(options.topics)  # type: ignore[attr-defined]  # as all have


def test_a_second_one_of_a_name_has_pods_and_a_group_of_its_own() -> None:
    values = load("minimal")
    values["consumers"]["second"] = {
        "name": "read_model",
        "options": {"schema": "read_model_2"},
        "postgres": {"existingSecret": "drx-read-model-postgres"},
        "kafka": {"credentialsSecret": "drx-second-kafka"},
        "keda": {"enabled": True},
    }
    found = render(values)
    first, second = (
        found.one("Deployment", suffix)["spec"]["template"]["spec"]["containers"][0]["command"]
        for suffix in ("-read-model", "-second")
    )

    assert second == first == ["drx-consumer", "run", "read_model"]
    groups = {each["metadata"]["consumerGroup"] for each in found.one("ScaledObject", "-second")["spec"]["triggers"]}
    assert groups == {"read_model.read_model_2"}
    usual = changed(values, "consumers.second.options.schema", "read_model")
    (first_trigger, *_) = render(usual).one("ScaledObject", "-second")["spec"]["triggers"]
    assert first_trigger["metadata"]["consumerGroup"] == ReadModelOptions(schema="read_model").group
    for login, ca in (({"clientCertificateSecret": "drx-second-certificate"}, ""), ({}, "kafka-ca")):
        certified = changed(usual, "consumers.second.kafka", login)
        certified["kafka"] |= {"securityProtocol": "SSL", "caSecret": ca}
        (trigger, *_) = render(certified).one("ScaledObject", "-second")["spec"]["triggers"]
        assert ("authenticationRef" in trigger, trigger["metadata"]["tls"]) == (True, "enable")
    assert "SASL_TOKEN_SCOPE" not in render(changed(load("full"), "kafka.tokenScope", "")).text
    words = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}
    for mechanism, word in words.items():
        (trigger, *_) = render(changed(usual, "kafka.saslMechanism", mechanism)).one("ScaledObject")["spec"]["triggers"]
        assert trigger["metadata"]["sasl"] == word
    plain = render(load("keda-plain"))
    assert not {"sasl", "tls"} & plain.one("ScaledObject")["spec"]["triggers"][0]["metadata"].keys()


def test_a_consumer_has_what_it_does_not_say_itself_from_the_defaults() -> None:
    own = {"replicas": 7, "keda": {"enabled": False}, "resources": {"limits": {"memory": "2Gi"}}}
    values = load("full")
    values["consumers"]["read_model"] |= {**own, "podSpec": {"tolerations": []}}
    found = render(values)
    mine, others = found.one("Deployment", "-read-model")["spec"], found.one("Deployment", "-eligible")["spec"]

    assert mine["replicas"] == 7
    assert "replicas" not in others
    assert mine["template"]["spec"]["tolerations"] == []
    assert others["template"]["spec"]["tolerations"] == values["consumerDefaults"]["podSpec"]["tolerations"]
    first, second = (each["template"]["spec"]["containers"][0] for each in (mine, others))
    assert first["resources"]["limits"] == second["resources"]["limits"] | {"memory": "2Gi"}
    assert first["resources"]["requests"] == second["resources"]["requests"]


SEVENTH = {
    "__init__.py": "",
    "consumer.py": """
from consumers.api import Consumer

def open_it(setup):
    consumer = Consumer("eligibility", ["drx.prescriptions.v1"], discloses=["To the payer."])

    @consumer.handler
    async def handle(event, context):
        pass

    return consumer
""",
    "chart.yaml": "values: {enabled: false, egress: [{ports: [{port: 8443}]}]}\nexample: {}\n",
    "metrics.yaml": "metrics: [{name: asked_total, type: counter, unit: '1', meaning: Questions asked, labels: {}}]\n",
    "alerts.yaml": "# Own.\ngroups:\n- name: drx-bridge-eligibility\n  rules: []\n",
    "panels.yaml": "- {title: Asked, text: Often., unit: ops, queries: {'': drxbridge_asked_total}}\n",
}


def test_a_seventh_consumer_comes_with_its_folder(tmp_path: Path) -> None:
    """A folder is all: the chart has its defaults, the pages its metrics, the rules its alerts, and doctor knows it."""
    folder = tmp_path / "eligibility"
    folder.mkdir()
    for name, text in SEVENTH.items():
        (folder / name).write_text(text)
    found = [*SHIPPED, *folders(tmp_path)]

    assert yaml.safe_load(chart_values(found))["consumers"]["eligibility"]["egress"] == [{"ports": [{"port": 8443}]}]
    assert yaml.safe_load(rule_files(found)["eligibility.yaml"])["groups"][0]["name"] == "drx-bridge-eligibility"
    assert '"title": "Asked"' in sinks(found)
    page = metrics_page(found)
    assert "## In addition, the consumer `eligibility`" in page
    assert "`drxbridge_asked_total`" in page

    env = install(tmp_path, {"eligibility": "eligibility.consumer:open_it"})
    nowhere = {
        "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CONSUMER_POSTGRES__DSN": "postgresql://a@127.0.0.1:1/b",
    }
    done = subprocess.run(
        [sys.executable, "-m", "consumers", "doctor", "eligibility"],
        env={**os.environ, **env, **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "To the payer." in done.stdout + done.stderr
