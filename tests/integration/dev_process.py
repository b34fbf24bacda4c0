"""A `drx-bridge dev` process for a test, observed as by an operator."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import psutil

from bridge.dev.processes import spawn
from tests.integration.service_process import HANG_S, until


def run_dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own command line


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bridge", "dev", *arguments]


class DevProcess:
    """One run on `data_dir`; ends with the context or with this process, and so do its children."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.endpoints_file = data_dir / "endpoints.json"
        # A file, not a pipe: without a reader, a full pipe would block it.
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `__exit__`
        self._command = command("--data-dir", str(data_dir), *arguments)
        self.start()

    def start(self) -> None:
        self._process = spawn(self._command, stderr=self._told)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._told.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> dict[str, Any]:
        until(lambda: self.endpoints_file.exists() or not self.alive, what="endpoints.json")
        assert self.alive, self.told()
        return self.endpoints()

    def told(self) -> str:
        self._told.seek(0)
        return self._told.read()

    def endpoints(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.endpoints_file.read_bytes())
        return content

    def new_pid(self, name: str, *, instead_of: int) -> int:
        pid: int = until(
            lambda: next((pid for n, pid in self.endpoints()["pids"].items() if n == name and pid != instead_of), 0),
            what=f"another {name}",
        )
        return pid

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(HANG_S)


def gone(pid: int) -> bool:
    """Whether no such process runs; a zombie does not count."""
    try:
        dead: bool = psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    return dead
