"""The programs read the settings of the chart: no variable is unknown, and every setting can be set."""

import re
import shlex

import pytest

from bridge.mapping.lookup import SHIPPED
from bridge.settings import Settings, load_settings
from consumers.options import read_options
from consumers.read_model.options import NAME, ReadModelOptions
from consumers.settings import ConsumerSettings
from consumers.settings import load_settings as load_consumer_settings
from docs.settings_page import all_variables
from tests.chart.rendering import CASES, Rendered, changed, load, render, variables
from tests.monitoring.test_runbooks import understood

# Fixed by the chart, so that ports and mounts meet; or wrong in a pod.
LEFT_OUT = {
    "BRIDGE_HTTP__HOST",  # a pod listens on its own address
    "BRIDGE_MANAGEMENT__HOST",
    "CONSUMER_MANAGEMENT__HOST",
    "CONSUMER_POSTGRES__DSN",  # a secret has no place in a variable
}
PROBES = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
CONSUMER_PORTS = {"management": "CONSUMER_MANAGEMENT"}
INGRESS = {name.replace("<NAME>", "DRX") for name in all_variables(Settings)}


def of(rendered: Rendered, part: str) -> dict[str, str] | None:
    """Variables of the pod of a component, if it runs."""
    for name, pod in rendered.pods():
        if name.partition("/")[0] in {"StatefulSet", "Deployment"} and name.endswith(part):
            return variables(rendered, pod, pod_name="pod-0")
    return None


@pytest.fixture(scope="module", params=CASES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    return render(CASES[request.param])


def ingress_settings(rendered: Rendered, clean: pytest.MonkeyPatch) -> Settings:
    for name, value in (of(rendered, "-ingress") or {}).items():
        clean.setenv(name, value)
    return load_settings()


def test_programs_can_read_their_settings(rendered: Rendered, clean: pytest.MonkeyPatch) -> None:
    if of(rendered, "-ingress"):
        settings = ingress_settings(rendered, clean)
        assert settings.instance == "pod-0"
        assert settings.sources
        assert all(source.profile in SHIPPED for source in settings.sources.values())
    if found := of(rendered, "-read-model"):
        for name, value in found.items():
            clean.setenv(name, value)
        of_reader = load_consumer_settings(["read_model"])
        read_options(ReadModelOptions, NAME, of_reader.options(NAME))
        assert of_reader.postgres.dsn is None


def test_every_file_that_a_setting_names_is_on_a_mount(rendered: Rendered) -> None:
    for name, pod in rendered.pods():
        container = pod["spec"]["containers"][0]
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        found = variables(rendered, pod, pod_name="pod-0")
        paths = [value for value in found.values() if value.startswith("/") and "{" not in value]  # of a URL
        paths += re.findall(r"=(/\S+)", " ".join(container["command"]))
        if "-drain-" in name:
            # It publishes nothing new: whatever is in a spool was verified when it came.
            paths = [path for path in paths if "/sources/" not in path]
        assert paths or not mounts, name
        for path in paths:
            assert any(f"{path}/".startswith(f"{mount}/") for mount in mounts), (name, path)


def test_commands_ports_and_probes_are_those_of_the_programs(rendered: Rendered) -> None:
    services = [
        f"http://{each['metadata']['name']}:{port['port']}/"
        for each in rendered.all("Service")
        for port in each["spec"]["ports"]
    ]
    for name, pod in rendered.pods():
        container = pod["spec"]["containers"][0]
        understood(shlex.join(container["command"]))
        for url in re.findall(r"--url=(\S+)", " ".join(container["command"])):
            assert any(url.startswith(f"{each}webhooks/") for each in services), name
        found = variables(rendered, pod, pod_name="pod-0")
        ports = {each["name"]: str(each["containerPort"]) for each in container.get("ports", [])}
        sections = {"http": "BRIDGE_HTTP", "management": "BRIDGE_MANAGEMENT"} if "http" in ports else CONSUMER_PORTS
        assert ports == ({each: found[f"{section}__PORT"] for each, section in sections.items()} if ports else {}), name
        probes = {kind: container[kind]["httpGet"] for kind in container if kind.endswith("Probe")}
        assert {kind: probe["path"] for kind, probe in probes.items()} == (PROBES if ports else {}), name
        assert {probe["port"] for probe in probes.values()} <= {"management"}, name


def test_a_drain_job_has_the_volume_that_it_is_for() -> None:
    claims = ["data-drx-drx-bridge-ingress-0", "data-drx-drx-bridge-ingress-1"]
    values = changed(load("minimal"), "ingress.spool.drainClaims", claims)
    values["ingress"]["spool"]["enabled"] = False
    for number, claim in enumerate(claims):
        assert render(values).one("NetworkPolicy", "-drain")
        pod = render(values).one("Job", f"-drain-{number}")["spec"]["template"]["spec"]
        (volume,) = (each for each in pod["volumes"] if "persistentVolumeClaim" in each)
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
        assert not mounts[volume["name"]].get("readOnly", False)


def test_every_setting_of_the_ingress_can_be_set() -> None:
    found, by_token = (of(render(CASES[name]), "-ingress") for name in ("full", "msk"))

    assert found is not None
    assert by_token is not None
    said = {name.replace("__TRIAL__", "__DRX__") for name in {**found, **by_token} if name.startswith("BRIDGE_")}
    said = {re.sub("__SCHEME_.*", "__SCHEME_<PARAMETER>", name) for name in said}
    assert INGRESS - said - LEFT_OUT == set()
    assert said - INGRESS == set()


def test_every_setting_of_a_consumer_can_be_set() -> None:
    found, by_token = (of(render(CASES[name]), "-read-model") for name in ("full", "msk"))

    assert found is not None
    assert by_token is not None
    said = {name for name in found if name.startswith("CONSUMER_") and not name.startswith("CONSUMER_READ_MODEL__")}
    assert all_variables(ConsumerSettings) - set(found) - set(by_token) - LEFT_OUT == set()
    assert said - all_variables(ConsumerSettings) == set()
