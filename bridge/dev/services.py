"""Our own child processes (registry, ingress, consumers): how each is started, and when it is ready."""

import contextlib
import http.client
import json
import os
import secrets
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bridge.dev.files import DataDirectory
from bridge.dev.ports import HOST
from bridge.dev.processes import STOP_GRACE_S, Child, run_to_end
from bridge.dev.sources import SOURCES

# The consumers that `dev` runs.
CONSUMERS = ("read_model", "forward", "archive")
# docs/contract.md §4.
PARTITIONS = 12
# Seconds; longer than drain and flush take together: 25 s in the ingress, 35 s in a consumer.
_INGRESS_GRACE_S, _CONSUMER_GRACE_S = 30.0, 40.0
_ID_KEY_BYTES = 32
# Seconds; an operator's commands end within one. The last resort against one that hangs.
_COMMAND_S = 30.0
_MODULES = {"drx-bridge": "bridge", "drx-consumer": "consumers"}
# Prefixes not inherited from the developer's shell, where they may be for another system.
_ELSEWHERE = (
    "BRIDGE_CONFIG",
    "BRIDGE_KAFKA__",
    "BRIDGE_REGISTRY__",
    "BRIDGE_SPOOL__",
    "BRIDGE_SOURCES__",
    "CONSUMER_ARCHIVE__",
    "CONSUMER_CONFIG",
    "CONSUMER_FORWARD__",
    "CONSUMER_KAFKA__",
    "CONSUMER_POSTGRES__",
    "CONSUMER_REGISTRY__",
)
# Seconds to drain the spool of an earlier run: one or two unless it is large. Deliveries are accepted meanwhile.
CATCH_UP_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.1


class Service(Child):
    """A process of ours that serves HTTP on loopback when it is ready."""

    def __init__(
        self,
        name: str,
        *module: str,
        directory: DataDirectory,
        port: int,
        ready_path: str = "/readyz",
        grace_s: float = STOP_GRACE_S,
        settings: Mapping[str, str] | None = None,
        sound: tuple[str, ...] = (),
    ) -> None:
        """`module` is what Python runs, with its arguments, and with `settings` in its environment.

        It is ready when `ready_path` returns 200 and the checks in `sound` are `ok`: 200 includes `degraded`.
        """
        super().__init__(
            name,
            command=[sys.executable, "-m", *module],
            cwd=directory.path,
            log=directory.logs / f"{name}.log",
            env=child_environment(os.environ, settings or {}),
            grace_s=grace_s,
        )
        self._port = port
        self._ready_path = ready_path
        self._sound = sound

    @property
    def url(self) -> str:
        """Base URL of its HTTP server."""
        return f"http://{HOST}:{self._port}"

    @property
    def ready(self) -> bool:
        """Return whether it reports ready."""
        status, content = get(self._port, self._ready_path)
        if status != http.HTTPStatus.OK:
            return False
        results = json.loads(content)["checks"] if self._sound else {}
        return all(results.get(name) == "ok" for name in self._sound)


def services_of(
    directory: DataDirectory, ports: Mapping[str, int], settings: Mapping[str, str], *, consumers: bool, show_phi: bool
) -> dict[str, Service]:
    """Describe the processes of a stack by name, in the order of their start; `settings` are those of the stack."""

    def service(name: str, *module: str, port: str = "", **options: Any) -> Service:
        return Service(name, *module, directory=directory, port=ports[port or name], **options)

    registry = ("bridge", "schemas", "serve", "--host", HOST, "--port", str(ports["registry"]))
    receiver = ("bridge.dev.receiver", str(ports["receiver"]), str(_forward_secrets(directory)))
    page = ("bridge.dev.page.server", str(ports["page"]), str(directory.path), *["--show-phi"] * show_phi)
    ingress = {
        "BRIDGE_HTTP__HOST": HOST,
        "BRIDGE_HTTP__PORT": str(ports["ingress"]),
        "BRIDGE_KAFKA__PARTITIONS": str(PARTITIONS),
    }
    consumer = {
        "CONSUMER_KAFKA__OFFSET_RESET": "earliest",
        # Seconds until the partitions of a killed member are reassigned; 45 in production.
        "CONSUMER_KAFKA__SESSION_S": "10",
        "CONSUMER_MANAGEMENT__HOST": HOST,
    }
    made = [service("registry", *registry, ready_path="/subjects")]
    if consumers:
        made.append(service("receiver", *receiver, ready_path="/received"))
        for name in CONSUMERS:
            own = {**settings, **consumer, "CONSUMER_MANAGEMENT__PORT": str(ports[name])}
            made.append(service(name, "consumers", "run", name, grace_s=_CONSUMER_GRACE_S, settings=own))
    more: dict[str, Any] = {"port": "management", "grace_s": _INGRESS_GRACE_S, "sound": ("kafka", "topics")}
    made.append(service("ingress", "bridge", "serve", settings={**settings, **ingress}, **more))
    made.append(service("page", *page, ready_path="/"))
    return {each.name: each for each in made}


def shared_settings(directory: DataDirectory) -> dict[str, str]:
    """Return the settings that ingress, consumers and an operator's commands need to use the data directory."""
    id_keys = str(directory.secret_dir("log", make=lambda: secrets.token_urlsafe(_ID_KEY_BYTES)))
    sources: dict[str, str] = {}
    for name, source in SOURCES.items():
        sources |= source.settings(name, directory.secret_dir(name, make=source.new_secret))
    return sources | {
        "BRIDGE_SPOOL__DIR": str(directory.spool),
        "BRIDGE_SPOOL__KEY_DIR": str(directory.secret_dir("spool")),
        "BRIDGE_LOG__ID_KEY_DIR": id_keys,
        "CONSUMER_LOG__ID_KEY_DIR": id_keys,
        "CONSUMER_FORWARD__ALLOW_HTTP": "true",
        "CONSUMER_FORWARD__SECRETS_DIR": str(_forward_secrets(directory)),
        "CONSUMER_ARCHIVE__ROOT": str(directory.lake),
        # Seconds; events appear in the lake quickly, in small files; two minutes in production.
        "CONSUMER_ARCHIVE__WAIT_S": "1",
    }


def _forward_secrets(directory: DataDirectory) -> Path:
    return directory.secret_dir("forward", make=SOURCES["drx"].new_secret)


def child_environment(ours: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: ours without settings of another installation, plus `settings`."""
    wanted = {name.upper() for name in settings}
    kept = {
        name: value
        for name, value in ours.items()
        if not name.upper().startswith(_ELSEWHERE) and name.upper() not in wanted
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


class Output(NamedTuple):
    """Output of a command on both streams, and its exit code."""

    command: str
    text: str
    code: int


def run_program(program: str, *arguments: str, settings: Mapping[str, str]) -> Output:
    """Run `drx-bridge` or `drx-consumer` with these settings, as an operator does, and wait for its end."""
    command = [sys.executable, "-m", _MODULES[program], *arguments]
    code, text = run_to_end(command, timeout_s=_COMMAND_S, env=child_environment(os.environ, settings))
    return Output(shlex.join([program, *arguments]), text, code)


def wait_caught_up(management_port: int) -> int:
    """Wait, within bounds, until the spool of an earlier run is drained; return how many partitions still spool.

    After that, deliveries are written directly, and repeats of earlier ones are recognised.
    """
    deadline = time.monotonic() + CATCH_UP_TIMEOUT_S
    while True:
        gauges = metrics_in(get(management_port, "/metrics")[1])
        left = int(gauges["spooling_partitions"])
        if (not left and gauges["dedupe_ready"]) or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_S)


def metrics_in(page: bytes) -> Mapping[str, float]:
    """Return the sum of each metric of ours over its labels, 0 if it is not on the page; names have no prefix."""
    found: dict[str, float] = defaultdict(float)
    for line in page.decode().splitlines():
        name, _, value = line.rpartition(" ")
        found[name.partition("{")[0].removeprefix("drxbridge_")] += 0 if line.startswith("#") else float(value)
    return found


def get(port: int, path: str) -> tuple[int, bytes]:
    """Send a GET to a loopback server, ignoring proxy settings; status 0 if it does not respond."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
