"""compose.yaml without an engine: its commands, in its order and with its settings, beside real servers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.commands.signing import read_signer
from bridge.dev.ports import free_port
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks
from consumers.postgres.pool import open_database
from tests.builders import a_body
from tests.cluster import Cluster, Topics
from tests.docker.cluster import IMAGE_DEFAULT
from tests.integration.service_process import HANG_S, ServiceProcess

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ORDER = [
    name
    for name in TopologicalSorter(
        {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    ).static_order()
    if name in OURS
]
STATE = "/var/lib/drx-bridge"


class Composed:
    """The services of ours, run one after the other as the file says; those that serve stay."""

    def __init__(self, directory: Path, addresses: Mapping[str, str], stack: ExitStack) -> None:
        self.addresses = dict(addresses) | {STATE: str(directory / "state")}
        self.running: dict[str, ServiceProcess] = {}
        self._directory = directory
        self._stack = stack
        Path(self.addresses[STATE]).mkdir()

    def up(self) -> None:
        for name in ORDER:
            service = OURS[name]
            for other, how in service.get("depends_on", {}).items():
                if how["condition"] == "service_healthy" and other in self.running:
                    self.running[other].ready()
            command = [self._here(part) for part in service["command"]]
            if "healthcheck" in service:
                self.running[name] = self._serve(name, command, self._environment(service))
            else:
                done = subprocess.run(  # noqa: S603 - our own
                    command, env=self._environment(service), capture_output=True, text=True, timeout=HANG_S, check=False
                )
                assert done.returncode == 0, (name, done.stderr)
        for process in self.running.values():
            process.ready()

    def down(self) -> None:
        """Stop what runs as Docker does; a consumer that was killed would be waited for until its session is over."""
        while self.running:
            _, process = self.running.popitem()
            process.send_signal(signal.SIGTERM)
            assert process.ended() == 0

    def _environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        clean = {n: v for n, v in os.environ.items() if not n.upper().startswith(("BRIDGE_", "CONSUMER_"))}
        given = {name: self._here(str(value)) for name, value in service["environment"].items()}
        return clean | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"} | given

    def _here(self, value: str) -> str:
        value = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value)
        for there, here in self.addresses.items():
            value = value.replace(there, here)
        return value

    def _serve(self, name: str, command: list[str], env: dict[str, str]) -> ServiceProcess:
        prefix, port = "BRIDGE" if command[0] == "drx-bridge" else "CONSUMER", free_port()
        own = {f"{prefix}_MANAGEMENT__HOST": "127.0.0.1", f"{prefix}_MANAGEMENT__PORT": str(port)}
        if prefix == "BRIDGE":
            self.addresses["port"] = str(free_port())
            own |= {"BRIDGE_HTTP__HOST": "127.0.0.1", "BRIDGE_HTTP__PORT": self.addresses["port"]}
        outputs = (self._directory / f"{name}.stdout", self._directory / f"{name}.stderr")
        process = ServiceProcess(command, env | own, outputs=outputs, management_url=f"http://127.0.0.1:{port}")
        return self._stack.enter_context(process)


@pytest.fixture
def composed(cluster: Cluster, postgres: str, tmp_path: Path) -> Iterator[Composed]:
    there = OURS["read-model"]["environment"]["CONSUMER_POSTGRES__DSN"]
    plain = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", there)
    with ExitStack() as stack:
        composed = Composed(tmp_path, {"kafka:9092": cluster.bootstrap_servers, plain: postgres}, stack)
        yield composed
        composed.down()


def start_twice(composed: Composed) -> Path:
    """Start it, and once more; return the file of its secret, which is the same as before."""
    secret = Path(composed.addresses[STATE], "secrets", "drx", "current")
    composed.up()
    first = secret.read_text()
    composed.down()
    composed.up()
    assert secret.read_text() == first
    return secret


async def test_a_delivery_reaches_the_read_model_of_a_second_start(
    composed: Composed, topics: Topics, postgres: str
) -> None:
    secret = start_twice(composed)
    key = topics.unique_key()
    body = a_body(id=key, data_prescription_id=key)
    headers = read_signer(StandardWebhooks(), secret)(key, int(time.time()), body)
    url = f"http://127.0.0.1:{composed.addresses['port']}/webhooks/drx"

    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        given = {"content-type": "application/json", **headers}
        async with session.post(url, data=body, headers=given) as answer:
            assert answer.status == 200

    query = "select count(*) from read_model.prescription where prescription_id = $1"
    async with asyncio.timeout(HANG_S), open_database(postgres, size=1, application_name="test") as database:
        found = 0
        while not found:
            async with database.transaction() as connection:
                found = await connection.fetchval(query, key)
            assert composed.running["read-model"].alive


def test_nothing_is_reachable_from_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_those_that_are_tested_and_none_is_latest() -> None:
    images = {service["image"] for service in SERVICES.values()}

    assert IMAGE_DEFAULT in images
    assert all(re.search(r":[0-9]", image) for image in images)
    (version,) = re.findall(r'^version = "(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert {service["image"] for service in OURS.values()} == {f"drx-bridge:{version}"}


def test_what_serves_is_restarted_and_has_its_grace_period() -> None:
    for service in OURS.values():
        serves = "healthcheck" in service
        assert service.get("restart", "no") == ("unless-stopped" if serves else "no")
        assert service.get("stop_grace_period") == ("45s" if serves else None)
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
