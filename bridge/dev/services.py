"""The children of our own, registry, ingress and consumers: how each is run, and when it does its work."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bridge.dev.files import DataDirectory
from bridge.dev.ports import HOST
from bridge.dev.processes import Child
from bridge.dev.sources import SOURCES, new_signing_secret
from bridge.errors import ConfigError

# The consumers that `dev` runs.
CONSUMERS = ("read_model", "forward", "archive")
# docs/contract.md §4.
PARTITIONS = 12
# Longer than the drain and the flush of a process take together: 25 s in the ingress, 35 s in a consumer.
_REGISTRY_GRACE_S, _RECEIVER_GRACE_S, _INGRESS_GRACE_S, _CONSUMER_GRACE_S = 5.0, 5.0, 30.0, 40.0
# A killed member keeps its partitions for so long; a developer should not wait as long as production may (45 s).
_SESSION_S = "10"
_ID_KEY_BYTES = 32
# A developer sees an event in the lake within seconds, in a file of its own; in production it waits for two minutes.
_LAKE_WAIT_S = "1"
# An operator's commands answer within a second; the last resort against one that hangs.
_COMMAND_S = 30.0
_MODULES = {"drx-bridge": "bridge", "drx-consumer": "consumers"}
# What the developer's shell may say about another system; the rest of BRIDGE_… and CONSUMER_… reaches the children.
_ELSEWHERE = (
    "BRIDGE_CONFIG",
    "BRIDGE_KAFKA__",
    "BRIDGE_REGISTRY__",
    "BRIDGE_SPOOL__",
    "BRIDGE_SOURCES__",
    "CONSUMER_ARCHIVE__ENDPOINT",
    "CONSUMER_ARCHIVE__HASH_KEY_FILE",
    "CONSUMER_ARCHIVE__REGION",
    "CONSUMER_CONFIG",
    "CONSUMER_FORWARD__CA_FILE",
    "CONSUMER_FORWARD__CERT_FILE",
    "CONSUMER_FORWARD__HEADERS_FILE",
    "CONSUMER_FORWARD__INSTANCE",
    "CONSUMER_FORWARD__KEY_FILE",
    "CONSUMER_KAFKA__",
    "CONSUMER_POSTGRES__",
    "CONSUMER_REGISTRY__",
)
# Two seconds on an idle machine, several times that beside a busy test suite; the last resort against a hang.
READY_TIMEOUT_S = 60.0
# A second or two unless there is much of it; deliveries are taken all the while.
CATCH_UP_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.1
_SPOOLING, _RECALLED = "drxbridge_spooling_partitions", "drxbridge_dedupe_ready"


@dataclass(frozen=True, slots=True)
class Service:
    """A child that answers on loopback when it is ready."""

    child: Child
    port: int
    ready_path: str
    grace_s: float
    """Time to end in order."""
    sound: tuple[str, ...] = ()
    """Checks that must say `ok`, where it is also ready with less."""

    @property
    def url(self) -> str:
        """Address of what answers."""
        return f"http://{HOST}:{self.port}"


def registry_service(directory: DataDirectory, *, port: int) -> Service:
    """Describe the registry."""
    arguments = ["bridge", "schemas", "serve", "--host", HOST, "--port", str(port)]
    child = _child("registry", arguments, directory=directory, settings={})
    return Service(child, port, "/subjects", _REGISTRY_GRACE_S)


def receiver_service(directory: DataDirectory, *, port: int) -> Service:
    """Describe the receiver of what `forward` sends."""
    arguments = ["bridge.dev.receiver", str(port), str(_signing_secrets(directory))]
    child = _child("receiver", arguments, directory=directory, settings={})
    return Service(child, port, "/", _RECEIVER_GRACE_S)


def forward_settings(directory: DataDirectory, receiver: Service) -> dict[str, str]:
    """Settings of `forward` that sends to `receiver`."""
    return {
        "CONSUMER_FORWARD__URL": receiver.url,
        "CONSUMER_FORWARD__ALLOW_HTTP": "true",
        "CONSUMER_FORWARD__SECRETS_DIR": str(_signing_secrets(directory)),
    }


def archive_settings(directory: DataDirectory) -> dict[str, str]:
    """Settings of `archive` that writes into the data directory."""
    return {"CONSUMER_ARCHIVE__ROOT": str(directory.lake), "CONSUMER_ARCHIVE__WAIT_S": _LAKE_WAIT_S}


def _signing_secrets(directory: DataDirectory) -> Path:
    return directory.secret_dir("forward", make=new_signing_secret)


def ingress_service(directory: DataDirectory, *, port: int, management_port: int, bootstrap_servers: str) -> Service:
    """Describe the ingress with every source of `SOURCES`; what answers is its management port."""
    settings = {
        "BRIDGE_HTTP__HOST": HOST,
        "BRIDGE_HTTP__PORT": str(port),
        "BRIDGE_MANAGEMENT__HOST": HOST,
        "BRIDGE_MANAGEMENT__PORT": str(management_port),
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "BRIDGE_KAFKA__PARTITIONS": str(PARTITIONS),
        "BRIDGE_SPOOL__DIR": str(directory.spool),
        "BRIDGE_SPOOL__KEY_DIR": str(directory.spool_key_dir()),
    }
    for name, source in SOURCES.items():
        settings |= source.settings(name, directory.secret_dir(name, make=source.new_secret))
    settings["BRIDGE_LOG__ID_KEY_DIR"] = str(id_key_dir(directory))
    child = _child("ingress", ["bridge", "serve"], directory=directory, settings=settings)
    return Service(child, management_port, "/readyz", _INGRESS_GRACE_S, sound=("kafka", "topics"))


def consumer_service(
    name: str,
    *,
    directory: DataDirectory,
    management_port: int,
    bootstrap_servers: str,
    postgres: str,
    own: Mapping[str, str],
) -> Service:
    """Describe a consumer that begins with the first record there is.

    Args:
        name: Of its entry point.
        directory: Where its log goes.
        management_port: Where it answers.
        bootstrap_servers: Of Kafka.
        postgres: DSN of its database.
        own: Settings that only it has.
    """
    settings = {
        "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "CONSUMER_KAFKA__OFFSET_RESET": "earliest",
        "CONSUMER_KAFKA__SESSION_S": _SESSION_S,
        "CONSUMER_POSTGRES__DSN": postgres,
        "CONSUMER_MANAGEMENT__HOST": HOST,
        "CONSUMER_MANAGEMENT__PORT": str(management_port),
        "CONSUMER_LOG__ID_KEY_DIR": str(id_key_dir(directory)),
        **own,
    }
    child = _child(name, ["consumers", "run", name], directory=directory, settings=settings)
    return Service(child, management_port, "/readyz", _CONSUMER_GRACE_S)


def id_key_dir(directory: DataDirectory) -> Path:
    """Return the directory of the key with which all processes hash the ids in their logs."""
    return directory.secret_dir("log", make=lambda: secrets.token_urlsafe(_ID_KEY_BYTES))


def child_environment(ours: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Environment of a child: ours, without what would tie it to another system, with its settings on top."""
    wanted = {name.upper() for name in settings}
    kept = {
        name: value
        for name, value in ours.items()
        if not name.upper().startswith(_ELSEWHERE) and name.upper() not in wanted
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


class Output(NamedTuple):
    """What a command printed on both streams, and its exit code."""

    command: str
    text: str
    code: int


def run_program(program: str, *arguments: str, settings: Mapping[str, str]) -> Output:
    """Run `drx-bridge` or `drx-consumer` to its end, as an operator does at a shell with these settings.

    Raises:
        ConfigError: It does not end.
    """
    command = shlex.join([program, *arguments])
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", _MODULES[program], *arguments],
            env=child_environment(os.environ, settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"`{command}` does not end"
        raise ConfigError(msg) from exc
    return Output(command, done.stdout.decode("utf-8", "replace").rstrip(), done.returncode)


def _child(name: str, module: list[str], *, directory: DataDirectory, settings: Mapping[str, str]) -> Child:
    return Child(
        name,
        command=[sys.executable, "-m", *module],
        cwd=directory.path,
        log=directory.logs / f"{name}.log",
        env=child_environment(os.environ, settings),
    )


def wait_ready(service: Service, *, check: Callable[[], None]) -> None:
    """Return when it is ready.

    Args:
        service: Its child was started.
        check: Called while waiting; may raise to give up.

    Raises:
        ConfigError: It ended, or was not ready in time.
    """
    service.child.wait_until(lambda: _is_ready(service), timeout_s=READY_TIMEOUT_S, check=check)


def wait_caught_up(ingress: Service, *, check: Callable[[], None], timeout_s: float = CATCH_UP_TIMEOUT_S) -> int:
    """Return when what an earlier run spooled is delivered, or after a while; how many partitions still spool.

    From then on every delivery is written directly, and a repeat of an earlier one is known.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        gauges = _gauges(ingress)
        left = int(gauges[_SPOOLING])
        if (not left and gauges[_RECALLED]) or time.monotonic() > deadline:
            return left
        check()
        time.sleep(_POLL_S)


def answers(port: int, path: str) -> bool:
    """Whether a loopback server answers 200."""
    return _get(port, path)[0] == http.HTTPStatus.OK


def _is_ready(service: Service) -> bool:
    status, content = _get(service.port, service.ready_path)
    if status != http.HTTPStatus.OK:
        return False
    results = json.loads(content)["checks"] if service.sound else {}
    return all(results.get(name) == "ok" for name in service.sound)


def _gauges(service: Service) -> dict[str, float]:
    _, content = _get(service.port, "/metrics")
    found = dict.fromkeys((_SPOOLING, _RECALLED), 0.0)
    for line in content.decode().splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name] = float(value)
    return found


def _get(port: int, path: str) -> tuple[int, bytes]:
    """Ask a loopback server directly, whatever proxy the environment names; status 0 when it does not answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
