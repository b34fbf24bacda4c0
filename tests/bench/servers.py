"""The candidates as processes, and what each has used of the machine."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import orjson
import psutil

from bridge.dev.ports import HOST, free_port
from bridge.dev.processes import Child
from bridge.dev.services import PARTITIONS, child_environment, get
from tests.bench.load import Load
from tests.bench.traffic import PATH, SECRET

ROOT = Path(__file__).parents[2]
NAIVE_TOPIC = "bench.naive"
START_S = 60.0
STOP_S = 40.0


@dataclass
class Server:
    """One candidate: what it was sent, said 2xx to (`taken`) and had resident after each load."""

    child: Child
    port: int
    ready: tuple[int, str]
    topics: tuple[str, ...]
    made: int = 0
    taken: set[int] = field(default_factory=set)
    rss: list[tuple[int, int]] = field(default_factory=list)

    def start(self) -> None:
        self.child.start()
        deadline = time.monotonic() + START_S
        while get(*self.ready)[0] != 200:
            if not self.child.alive or time.monotonic() > deadline:
                sys.exit(f"{self.child.name} does not answer; see {self.child.log}")
            time.sleep(0.1)

    def stop(self) -> int | None:
        self.child.stop()
        return self.child.exit_code

    @property
    def cpu_s(self) -> float:
        times = psutil.Process(self.child.pid).cpu_times()
        return float(times.user + times.system)

    def metric(self, name: str) -> float | None:
        """Return a metric without labels as the management port has it; None without it."""
        port, _ = self.ready
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=START_S) as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else None

    @property
    def rss_peak(self) -> int:
        """Most bytes it ever had resident."""
        text = Path(f"/proc/{self.child.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        return int(found[1]) * 1024 if found else 0

    def load(self, count: int, *, connections: int, rate: float = 0.0) -> tuple[Load, float]:
        """Have another process make `count` requests; return what it saw and the CPU seconds they cost here."""
        before = self.cpu_s
        done = subprocess.run(  # noqa: S603 - our own command line
            [*(sys.executable, "-m", "tests.bench.load"), *map(str, (self.port, self.made, count, connections, rate))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        used_s = self.cpu_s - before
        seen = Load(**orjson.loads(done.stdout))
        self.taken |= set(range(self.made, self.made + count)) - set(seen.refused)
        self.made += count
        self.rss.append((self.made, psutil.Process(self.child.pid).memory_info().rss))
        return seen, used_s


def naive(directory: Path, bootstrap_servers: str, *, kind: str) -> Server:
    """Describe a naive service, `signed` or `unsigned`."""
    port = free_port()
    child = Child(
        f"naive, {kind}",
        command=[sys.executable, "-m", "tests.bench.naive", kind, str(port), bootstrap_servers, NAIVE_TOPIC],
        cwd=ROOT,
        log=directory / "naive.log",
    )
    return Server(child, port, (port, "/"), (NAIVE_TOPIC,))


def bridge(directory: Path, bootstrap_servers: str, more: Mapping[str, str] = MappingProxyType({})) -> Server:
    """Describe the ingress with everything on; as in a pod its log lines leave as JSON, here into a file."""
    secrets = directory / "secrets"
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    port, management = free_port(), free_port()
    name = PATH.rpartition("/")[2]
    settings = {
        "BRIDGE_HTTP__HOST": HOST,
        "BRIDGE_HTTP__PORT": str(port),
        "BRIDGE_MANAGEMENT__HOST": HOST,
        "BRIDGE_MANAGEMENT__PORT": str(management),
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
        "BRIDGE_SPOOL__DIR": str(directory / "spool"),
        "BRIDGE_KAFKA__PARTITIONS": str(PARTITIONS),
        "BRIDGE_LOG__LEVEL": "info",
        f"BRIDGE_SOURCES__{name}__PROFILE": "drx_standard",
        f"BRIDGE_SOURCES__{name}__ENVIRONMENT": "sandbox",
        f"BRIDGE_SOURCES__{name}__SECRETS_DIR": str(secrets),
        **more,
    }
    child = Child(
        "bridge",
        command=[sys.executable, "-m", "bridge", "serve"],
        cwd=directory,
        log=directory / "bridge.log",
        env=child_environment(os.environ, settings),
        grace_s=STOP_S,
    )
    return Server(child, port, (management, "/readyz"), ("drx.prescriptions.v1", "drx.unrecognized.v1"))
