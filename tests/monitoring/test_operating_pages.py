"""The pages of objectives and of systemd agree with the rules, and third-party programs accept them."""

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from bridge.dev.ports import HOST, free_port
from bridge.runtime.metrics import IngressMetrics
from consumers.runtime.metrics import ConsumerMetrics
from tests.debian import command, fetch, lacking
from tests.faults.alerts.servers import prometheus
from tests.integration.service_process import until
from tests.monitoring.queries import ROOT, RULES, alerts, blocks
from tests.promtool import complaints

DOCS = ROOT / "docs"
SLO = DOCS / "slo.md"
SAMPLE = DOCS / "alertmanager.yaml"
UNITS = dict(re.findall(r"<!-- systemd: (\S+) -->\n```\w+\n(.*?)```", (DOCS / "systemd.md").read_text(), re.DOTALL))
OBJECTIVES = [rule for group in RULES["groups"] for rule in group["rules"] if "slo" in rule.get("labels", {})]


def rows(heading: str) -> list[list[str]]:
    table = SLO.read_text().partition(heading)[2].partition("|\n\n")[0]
    lines = [line.strip("| ") for line in table.splitlines() if line.startswith("|")]
    return [re.split(r" ?\| ", line) for line in lines[2:]]


def test_targets_are_those_of_the_rules() -> None:
    stated = {
        slo: round(1 - float(target) / 100, 5)
        for slo, target in re.findall(r"`(\w+)` \|.* \| ([\d.]+) % \|", SLO.read_text())
    }
    burns = [each for each in OBJECTIVES if each["record"].startswith("drxbridge:slo_burn")]
    counted = {
        each["labels"]["slo"]: float(re.search(r"> 0\) / ([\d.]+)", each["expr"])[1])  # type: ignore[index]  # else it fails
        for each in burns
    }

    assert stated == counted
    for each in burns:
        bounds = set(re.findall(r'le="([\d.]+)"', each["expr"]))
        assert not bounds or f"within {float(*bounds):g} s" in SLO.read_text()


def test_windows_are_those_of_the_alerts() -> None:
    stated = {
        (float(burn), *windows.replace(" min", "m").replace(" h", "h").split(" and "), duration.replace(" min", "m"))
        for burn, windows, duration, *_ in rows("An alert compares")
    }
    rules = [each for group in RULES["groups"] for each in group["rules"] if "slo_burn" in each.get("expr", "")]
    used = set()
    for each in rules:
        found = re.findall(r"rate(\w+)\{[^}]*\} > ([\d.]+)", each["expr"])
        used.add((float(found[0][1]), *(window for window, _ in found), each["for"]))
        assert ">= 10" in each["expr"]

    assert stated == used


def test_queries_of_the_page_are_parsed(tmp_path: Path) -> None:
    assert complaints([*blocks(SLO, "promql")], tmp_path) == ""


def test_alertmanager_takes_the_sample_and_routes_each_alert_by_its_severity() -> None:
    if fetch("amtool") is None:
        pytest.skip(lacking("amtool"))
    amtool = command("amtool")
    checked = subprocess.run([*amtool, "check-config", SAMPLE], capture_output=True, text=True, check=False)  # noqa: S603 - a fixed program
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name, severity in {(each.name, each.severity) for each in alerts()}:
        labels = [f"alertname={name}", f"severity={severity}"]
        routed = subprocess.run(  # noqa: S603 - as above
            [*amtool, "config", "routes", "test", f"--config.file={SAMPLE}", *labels],
            capture_output=True,
            text=True,
            check=False,
        )
        assert routed.stdout.strip() == f"{severity}s", routed.stderr


def test_units_are_valid_and_closed(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing: Debian's package systemd has it")
    dropped = tmp_path / "drx-.service.d"
    dropped.mkdir()
    for name, text in UNITS.items():
        # It asks whether the program is there.
        own = re.sub(r"/opt/drx-bridge/bin/\S+", sys.executable, text)
        ((dropped if name == "sandbox.conf" else tmp_path) / name).write_text(own)

    def analyze(*arguments: str) -> str:
        found = subprocess.run(  # noqa: S603 - a fixed program
            [program, *arguments],
            env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stderr

    for unit in ("drx-bridge.service", "drx-consumer@read_model.service"):
        assert analyze("verify", unit) == ""
        # Tenths; what is left is the network, and files that all may read.
        analyze("security", "--offline=true", "--threshold=15", unit)


def test_prometheus_of_the_page_asks_each_process_and_its_alerts_link_to_runbooks(tmp_path: Path) -> None:
    if lacks := [lacking(name) for name in ("prometheus", "promtool") if fetch(name) is None]:
        pytest.skip("; ".join(lacks))
    config, ports = UNITS["prometheus.yml"], {"9090": free_port(), "9091": free_port()}
    for written, port in ports.items():
        config = config.replace(f":{written}", f":{port}")
    shell = UNITS["rules.sh"].replace("promtool", " ".join(command("promtool")))
    shell = shell.replace("/etc/prometheus/prometheus.yml", "prometheus.yaml")
    (tmp_path / "prometheus.yaml").write_text(config.replace("/etc/prometheus", str(tmp_path)).replace("30s", "1s"))
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    done = subprocess.run(  # noqa: S603 - the page's
        ["/bin/bash", "-euc", shell.replace("/etc/prometheus", str(tmp_path))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    registries = CollectorRegistry(), CollectorRegistry()
    IngressMetrics(registries[0])
    ConsumerMetrics(registries[1], service="read_model")
    with ExitStack() as stack:
        for port, registry in zip(ports.values(), registries, strict=True):
            server, thread = start_http_server(port, HOST, registry)
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
        watching = stack.enter_context(prometheus(tmp_path))
        until(lambda: watching.value('count(up{namespace="drx"} == 1)') == len(ports), what="both targets")
        until(lambda: watching.value("max by (namespace, service) (drxbridge_parked_keys)") is not None, what="metrics")
        assert watching.runbooks() == {
            f"https://git.example.test/drx-bridge/-/blob/main/{each.runbook}" for each in alerts()
        }


def test_settings_of_the_unit_are_settings() -> None:
    known = (DOCS / "settings.md").read_text()
    for name in re.findall(r"^(\w+)=", UNITS["bridge.env"], re.MULTILINE):
        assert f"`{name.replace('__DRX__', '__<NAME>__')}`" in known, name
