"""The children beside Kafka: the registry and the ingress, run as an operator would run them."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
from collections.abc import Mapping

from bridge.dev.directory import DataDirectory
from bridge.dev.ports import HOST
from bridge.dev.processes import Child

# The sources that `dev` configures: name to shipped profile.
SOURCES = {"drx": "drx_standard"}
# CONTRACT 4.
PARTITIONS = 12
_PROBE_TIMEOUT_S = 2.0
# What the developer's shell may say about another system; the rest of BRIDGE_… reaches the children.
_OURS = ("BRIDGE_CONFIG", "BRIDGE_KAFKA__", "BRIDGE_REGISTRY__", "BRIDGE_SOURCES__")


def registry_child(directory: DataDirectory, *, port: int) -> Child:
    """Describe the embedded registry."""
    directory.registry.mkdir(exist_ok=True)
    arguments = [
        "schemas",
        "serve",
        "--host",
        HOST,
        "--port",
        str(port),
        "--file",
        str(directory.registry / "schemas.json"),
    ]
    return _child("registry", arguments, directory=directory, env=child_environment(os.environ, {}))


def ingress_child(directory: DataDirectory, *, port: int, management_port: int, bootstrap_servers: str) -> Child:
    """Describe the ingress with every source of `SOURCES`."""
    settings = {
        "BRIDGE_HTTP__HOST": HOST,
        "BRIDGE_HTTP__PORT": str(port),
        "BRIDGE_MANAGEMENT__HOST": HOST,
        "BRIDGE_MANAGEMENT__PORT": str(management_port),
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "BRIDGE_KAFKA__PARTITIONS": str(PARTITIONS),
    }
    for name, profile in SOURCES.items():
        settings |= {
            f"BRIDGE_SOURCES__{name}__PROFILE": profile,
            f"BRIDGE_SOURCES__{name}__ENVIRONMENT": "sandbox",
            f"BRIDGE_SOURCES__{name}__SECRETS_DIR": str(directory.secret_dir(name)),
        }
    return _child("ingress", ["serve"], directory=directory, env=child_environment(os.environ, settings))


def child_environment(ours: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Environment of a child: ours, without what would tie it to another system, with its settings on top."""
    wanted = {name.upper() for name in settings}
    kept = {
        name: value for name, value in ours.items() if not name.upper().startswith(_OURS) and name.upper() not in wanted
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


def answers(port: int, path: str) -> bool:
    """Whether a loopback server answers 200; asked directly, whatever proxy the environment names."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _child(name: str, arguments: list[str], *, directory: DataDirectory, env: Mapping[str, str]) -> Child:
    return Child(
        name,
        command=[sys.executable, "-m", "bridge", *arguments],
        cwd=directory.path,
        log=directory.logs / f"{name}.log",
        env=env,
    )
