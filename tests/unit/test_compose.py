"""compose.yaml without an engine: its commands, settings and order match the programs."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.settings import load_settings
from consumers.settings import load_settings as load_consumer_settings
from tests.docker.cluster import IMAGE_DEFAULT
from tests.monitoring.queries import BOARDS
from tests.monitoring.test_runbooks import understood
from tests.promtool import promtool

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_a_service_is_a_command_with_settings_that_the_program_reads(
    service: dict[str, Any], clean: pytest.MonkeyPatch
) -> None:
    command = shlex.join(service["command"]) if service["command"][0] != "sh" else service["command"][-1]
    understood(re.findall(r"drx-(?:bridge|consumer) .*", command)[-1].strip())
    given = {name: str(value) for name, value in service["environment"].items()}
    for name, value in given.items():
        clean.setenv(name, re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value))
    if "BRIDGE_SPOOL__DIR" in given:
        assert load_settings().sources["drx"].profile == "drx_standard"
        state = [each.partition(":")[2] for each in service.get("volumes", [])]
        served = "serve" in service["command"]
        paths = [value for value in given.values() if value.startswith("/") and served]
        assert all(path.startswith(tuple(state)) for path in paths)
    else:
        assert load_consumer_settings(["read_model"]).postgres.dsn is not None


def test_what_a_service_needs_has_served_or_ended_before_it() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            serves = "healthcheck" in SERVICES[other]
            assert how["condition"] == ("service_healthy" if serves else "service_completed_successfully"), name
    before = {name: service.get("depends_on", {}).keys() for name, service in OURS.items()}
    assert (before["topics"], before["ingress"]) == ({"kafka", "secrets"}, {"topics"})
    assert (before["read-model-init"], before["read-model"]) == ({"topics", "postgres"}, {"read-model-init"})


def test_nothing_is_reachable_from_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_those_that_are_tested_and_none_is_latest() -> None:
    images = {service["image"] for service in SERVICES.values()}

    assert IMAGE_DEFAULT in images
    assert all(re.search(r":v?[0-9]", image) for image in images)
    (version,) = re.findall(r'^version = "(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {service["image"] for service in OURS.values()} == {f"drx-bridge:{version}"}


def test_what_serves_is_restarted_and_has_its_grace_period() -> None:
    for service in OURS.values():
        serves = "healthcheck" in service
        assert service.get("restart", "no") == ("unless-stopped" if serves else "no")
        assert service.get("stop_grace_period") == ("45s" if serves else None)
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_prometheus_scrapes_what_runs_and_grafana_has_the_sources_of_its_dashboards(tmp_path: Path) -> None:
    contents = {name: config["content"] for name, config in COMPOSE["configs"].items()}
    (tmp_path / "prometheus.yml").write_text(contents["prometheus"])
    assert promtool("check", "config", "prometheus.yml", cwd=tmp_path).returncode == 0
    (scrape,) = yaml.safe_load(contents["prometheus"])["scrape_configs"]
    running = {f"{name}:9090" for name, service in OURS.items() if "healthcheck" in service}
    assert set(scrape["static_configs"][0]["targets"]) == running
    asked = {each["templating"]["list"][0]["query"] for each in BOARDS.values()}
    assert {each["type"] for each in yaml.safe_load(contents["datasources"])["datasources"]} == asked
    mounted = [each.split(":") for name in ("prometheus", "grafana") for each in SERVICES[name]["volumes"]]
    assert all((ROOT / place).is_dir() for place, *_ in mounted if place.startswith("./"))
    (provider,) = yaml.safe_load(contents["dashboards"])["providers"]
    assert provider["options"]["path"] in {inside for _, inside, *_ in mounted}
