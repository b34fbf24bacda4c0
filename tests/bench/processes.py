"""Measured processes of the project: resource usage and metrics."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from bridge.dev.ports import HOST, free_port
from bridge.dev.processes import Child
from bridge.dev.services import child_environment, get
from tests.installed import ROOT

STOP_S = 60.0
MIB = 2**20


class Process(Child):
    """A program of ours with a management port."""

    def __init__(self, module: str, *arguments: str, prefix: str, directory: Path, settings: Mapping[str, str]) -> None:
        self.management_port = free_port()
        ours = {
            "MANAGEMENT__HOST": HOST,
            "MANAGEMENT__PORT": str(self.management_port),
            # As in a pod its log lines leave as JSON, here into a file.
            "LOG__LEVEL": "info",
            **settings,
        }
        environment = {f"{prefix}_{name}": value for name, value in ours.items()} | {"PYTHONPATH": str(ROOT)}
        super().__init__(
            module,
            command=[sys.executable, "-m", module, *arguments],
            cwd=directory,
            log=directory / f"{module}-{self.management_port}.log",
            env=child_environment(os.environ, environment),
            grace_s=STOP_S,
        )

    @property
    def ready(self) -> bool:
        return get(self.management_port, "/readyz")[0] == 200

    def metric(self, name: str, label: str = "") -> float:
        """Sum of the samples of that name which have such a label; 0 while nobody answers."""
        _, text = get(self.management_port, "/metrics")
        found = re.findall(rf"^{name}(?:\{{[^}}]*{label}[^}}]*\}})? (\S+)$", text.decode(), re.MULTILINE)
        return sum(map(float, found))


def cpu_s(child: Child) -> float:
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


def rss(child: Child) -> int:
    return int(psutil.Process(child.pid).memory_info().rss)


def rss_peak(child: Child) -> int:
    """Peak resident bytes."""
    text = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024
