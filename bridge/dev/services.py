"""The children of our own: registry, ingress and consumers, run as an operator would run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.dev.directory import DataDirectory
from bridge.dev.ports import HOST
from bridge.dev.processes import Child

# The consumers that `dev` runs.
CONSUMERS = ("read_model",)
# The sources that `dev` configures: name to shipped profile.
SOURCES = {"drx": "drx_standard"}
# docs/contract.md §4.
PARTITIONS = 12
# Longer than the drain and the flush of a process take together: 25 s in the ingress, 35 s in a consumer.
_REGISTRY_GRACE_S, _INGRESS_GRACE_S, _CONSUMER_GRACE_S = 5.0, 30.0, 40.0
# A killed member keeps its partitions for so long; a developer should not wait as long as production may (45 s).
_SESSION_S = "10"
# What the developer's shell may say about another system; the rest of BRIDGE_… and CONSUMER_… reaches the children.
_ELSEWHERE = (
    "BRIDGE_CONFIG",
    "BRIDGE_KAFKA__",
    "BRIDGE_REGISTRY__",
    "BRIDGE_SPOOL__",
    "BRIDGE_SOURCES__",
    "CONSUMER_ACCEPT__",
    "CONSUMER_CONFIG",
    "CONSUMER_KAFKA__",
    "CONSUMER_POSTGRES__",
    "CONSUMER_REGISTRY__",
)


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
    """Describe the embedded registry."""
    directory.registry.mkdir(exist_ok=True)
    file = str(directory.registry / "schemas.json")
    arguments = ["bridge", "schemas", "serve", "--host", HOST, "--port", str(port), "--file", file]
    child = _child("registry", arguments, directory=directory, settings={})
    return Service(child, port, "/subjects", _REGISTRY_GRACE_S)


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
    for name, profile in SOURCES.items():
        settings |= {
            f"BRIDGE_SOURCES__{name}__PROFILE": profile,
            f"BRIDGE_SOURCES__{name}__ENVIRONMENT": "sandbox",
            f"BRIDGE_SOURCES__{name}__SECRETS_DIR": str(directory.secret_dir(name)),
        }
    child = _child("ingress", ["bridge", "serve"], directory=directory, settings=settings)
    return Service(child, management_port, "/readyz", _INGRESS_GRACE_S, sound=("kafka", "topics"))


def consumer_service(
    name: str, *, directory: DataDirectory, management_port: int, bootstrap_servers: str, postgres: str
) -> Service:
    """Describe a consumer that begins with the first record there is; `postgres` is the DSN of its database."""
    settings = {
        "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "CONSUMER_KAFKA__OFFSET_RESET": "earliest",
        "CONSUMER_KAFKA__SESSION_S": _SESSION_S,
        "CONSUMER_POSTGRES__DSN": postgres,
        "CONSUMER_MANAGEMENT__HOST": HOST,
        "CONSUMER_MANAGEMENT__PORT": str(management_port),
    }
    child = _child(name, ["consumers", "run", name], directory=directory, settings=settings)
    return Service(child, management_port, "/readyz", _CONSUMER_GRACE_S)


def child_environment(ours: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Environment of a child: ours, without what would tie it to another system, with its settings on top."""
    wanted = {name.upper() for name in settings}
    kept = {
        name: value
        for name, value in ours.items()
        if not name.upper().startswith(_ELSEWHERE) and name.upper() not in wanted
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


def _child(name: str, module: list[str], *, directory: DataDirectory, settings: Mapping[str, str]) -> Child:
    return Child(
        name,
        command=[sys.executable, "-m", *module],
        cwd=directory.path,
        log=directory.logs / f"{name}.log",
        env=child_environment(os.environ, settings),
    )
