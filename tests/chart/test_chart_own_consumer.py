"""A consumer of somebody else runs with the chart as those that ship do."""

from __future__ import annotations

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from consumers.commands.new import render as render_package
from consumers.options import EndpointOptions
from consumers.settings import load_settings
from tests.chart.environment import variables
from tests.chart.rendering import Rendered, changed, load, render


@pytest.fixture(scope="module")
def full() -> Rendered:
    return render(load("full"))


def test_its_image_runs_it_by_name(full: Rendered) -> None:
    for kind, suffix, command in (
        ("Deployment", "-eligible", ["drx-consumer", "run", "eligibility-check"]),
        ("Job", "-eligible-init", ["drx-consumer", "init", "eligibility-check"]),
    ):
        container = full.one(kind, suffix)["spec"]["template"]["spec"]["containers"][0]
        assert container["command"][:3] == command
        assert container["image"].startswith("registry.example.test/pharmacy/eligibility:2.4.1@sha256:9c8d")
    assert full.one("Deployment", "-fhir")["spec"]["template"]["spec"]["containers"][0]["image"].count("drx-bridge:")


def test_a_consumer_that_ships_may_have_an_image_of_its_own_too() -> None:
    """`archive` needs one with its libraries."""
    image = {"repository": "pharmacy/drx-bridge-archive", "digest": f"sha256:{'a' * 64}"}
    rendered = render(changed(load("full"), "consumers.archive.image", image))

    for kind, suffix in (("Deployment", "-archive"), ("Job", "-archive-init")):
        container = rendered.one(kind, suffix)["spec"]["template"]["spec"]["containers"][0]
        assert container["image"] == f"registry.example.test/pharmacy/drx-bridge-archive@sha256:{'a' * 64}"
    other = rendered.one("Deployment", "-fhir")["spec"]["template"]["spec"]["containers"][0]
    assert "archive" not in other["image"]


def test_it_can_read_its_options(full: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = full.one("Deployment", "-eligible")["spec"]["template"]
    for name, value in variables(full, pod, pod_name="pod-0").items():
        monkeypatch.setenv(name, value)

    assert load_settings(["eligibility-check"]).options("eligibility-check") == {
        "url": "https://payer.example.test",
        "states": "TX,OK",
        "timeout_s": "2.5",
        "topics": "drx.prescriptions.v1",
    }


def test_it_reaches_what_it_names_and_others_do_not(full: Rendered) -> None:
    def reached(suffix: str) -> list[object]:
        return [rule.get("to") for rule in full.one("NetworkPolicy", suffix)["spec"]["egress"]]

    payer = [{"ipBlock": {"cidr": "10.80.0.7/32"}}]
    for suffix in ("-eligible", "-eligible-init"):
        assert payer in reached(suffix)
    for suffix in ("-fhir", "-ingress", "-drain"):
        assert payer not in reached(suffix)
    for suffix in ("-ingress", "-drain", "-topics"):
        assert [{"ipBlock": {"cidr": "10.70.0.3/32"}}] in reached(suffix)


def test_it_is_scaled_by_the_lag_of_its_group(full: Rendered) -> None:
    (trigger,) = full.one("ScaledObject", "-eligible")["spec"]["triggers"]

    assert trigger["metadata"]["consumerGroup"] == "eligibility.v2"
    assert trigger["metadata"]["topic"] == "drx.prescriptions.v1"


def test_its_group_is_its_name_whatever_its_options_are() -> None:
    mine = {
        "name": "eligibility",
        "options": {"schema": "claims", "instance": "west"},
        "postgres": {"existingSecret": "eligibility-postgres"},
        "kafka": {"credentialsSecret": "eligibility-kafka"},
        "keda": {"enabled": True},
    }
    found = render(changed(load("minimal"), "consumers.eligibility", mine)).one("ScaledObject", "-eligibility")

    assert {each["metadata"]["consumerGroup"] for each in found["spec"]["triggers"]} == {"eligibility"}


@pytest.mark.parametrize("instance", ["forward", "ehr"])
def test_the_group_of_an_instance_has_its_name(instance: str) -> None:
    values = changed(changed(load("full"), "consumers.forward.options.instance", instance), "strimzi.cluster", "")
    (trigger, *_) = render(values).one("ScaledObject", "-forward")["spec"]["triggers"]

    assert trigger["metadata"]["consumerGroup"] == EndpointOptions(instance=instance).group("forward")


def test_the_values_of_a_new_package_run_it() -> None:
    values = load("minimal")
    written = yaml.safe_load(render_package("refill-desk-of-texas")["values.yaml"])
    values["consumers"] |= written["consumers"]

    container = render(values).one("Deployment", "-refill-desk")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:3] == ["drx-consumer", "run", "refill-desk-of-texas"]
    assert container["image"] == "registry.example.com/refill-desk-of-texas:0.1.0"


def test_little_has_to_be_said_of_it() -> None:
    values = load("minimal")
    values["consumers"]["second"] = {
        "name": "read_model",
        "options": {"schema": "read_model_2"},
        "postgres": {"existingSecret": "drx-read-model-postgres"},
        "kafka": {"credentialsSecret": "drx-second-kafka"},
        "keda": {"enabled": True},
    }
    found = render(values)
    first, second = (found.one("Deployment", suffix)["spec"] for suffix in ("-read-model", "-second"))

    assert second["template"]["spec"]["containers"][0]["image"] == first["template"]["spec"]["containers"][0]["image"]
    groups = {each["metadata"]["consumerGroup"] for each in found.one("ScaledObject", "-second")["spec"]["triggers"]}
    assert groups == {"read_model.read_model_2"}
