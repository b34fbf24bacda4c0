"""The candidates as processes, and their loads."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bridge.dev.ports import HOST, free_port, is_free
from bridge.dev.processes import Child
from bridge.dev.services import PARTITIONS
from tests.bench.load import Load
from tests.bench.processes import Process, cpu_s
from tests.bench.traffic import PATH, SECRET
from tests.installed import ROOT

NAIVE_TOPIC = "bench.naive"


@dataclass
class Server:
    """One candidate: how many deliveries it was sent, and which it said 2xx to (`taken`)."""

    child: Child
    port: int
    topics: tuple[str, ...]
    made: int = 0
    taken: set[int] = field(default_factory=set)

    def start(self) -> None:
        self.child.start()
        self.child.wait_until(lambda: self.child.ready and not is_free(self.port))

    def load(self, count: int) -> Load:
        """Let another process make `count` requests; return its results and the CPU seconds of the server."""
        before = cpu_s(self.child)
        done = subprocess.run(  # noqa: S603 - our own command line
            [*(sys.executable, "-m", "tests.bench.load"), *map(str, (self.port, self.made, count))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        seen = Load(**orjson.loads(done.stdout) | {"cpu_s": cpu_s(self.child) - before})
        self.taken |= set(range(self.made, self.made + count)) - set(seen.refused)
        self.made += count
        return seen


def naive(directory: Path, bootstrap_servers: str) -> Server:
    """Describe the naive service."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.naive", str(port), bootstrap_servers, NAIVE_TOPIC]
    child = Child("naive", command=command, cwd=ROOT, log=directory / "naive.log")
    return Server(child, port, (NAIVE_TOPIC,))


def bridge(directory: Path, bootstrap_servers: str) -> Server:
    """Describe the ingress with everything on."""
    port = free_port()
    settings = ingress_settings(directory, port, bootstrap_servers)
    process = Process("bridge", "serve", prefix="BRIDGE", directory=directory, settings=settings)
    return Server(process, port, ("drx.prescriptions.v1", "drx.unrecognized.v1"))


def ingress_settings(directory: Path, port: int, bootstrap_servers: str) -> dict[str, str]:
    secrets, source = directory / "secrets", PATH.rpartition("/")[2]
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    return {
        "HTTP__HOST": HOST,
        "HTTP__PORT": str(port),
        "KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "KAFKA__PARTITIONS": str(PARTITIONS),
        "SPOOL__DIR": str(directory / "spool"),
        f"SOURCES__{source}__PROFILE": "drx_standard",
        f"SOURCES__{source}__ENVIRONMENT": "sandbox",
        f"SOURCES__{source}__SECRETS_DIR": str(secrets),
    }
