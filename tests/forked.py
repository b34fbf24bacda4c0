"""The project's processes, forked from one with all imports: saves a second of CPU each.

Settings that act before the first line of Python (`LD_PRELOAD`) have no effect: see `can_fork`.
"""

import atexit
import ctypes
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.forkserver import _forkserver
from pathlib import Path

from bridge.runtime import failpoints

PROGRAMS = ("bridge", "consumers", "tests.patched", "tests.faults.sabotage")
# Includes the lazy imports of `serve`, `run` and the commands.
IMPORTED = [
    __name__,
    "bridge.app",
    "bridge.commands.serve",
    "consumers.app",
    "consumers.commands.init",
    "consumers.commands.parked",
    "consumers.commands.run",
    "consumers.read_model.consumer",
]
AT_START = ("LD_PRELOAD",)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# A start polls every other process, and if two threads poll, one gets a wrong result.
_LOCK = threading.Lock()
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(IMPORTED)


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether a program behaves the same when it is forked."""
    python, module, program, *_ = [*command, "", "", ""]
    return (
        (python, module) == (sys.executable, "-m") and program in PROGRAMS and not any(name in env for name in AT_START)
    )


class Forked:
    """A running program of the project, with the interface of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], outputs: tuple[Path, Path]) -> None:
        for path in outputs:
            path.touch()
        self._process = _CONTEXT.Process(target=_become, args=(list(command[2:]), dict(env), outputs), daemon=True)
        with _LOCK:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        with _LOCK:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        wait([self._process.sentinel], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(command: Sequence[str], env: Mapping[str, str], *, timeout_s: float) -> tuple[int, str, str]:
    """Run a program that `can_fork` accepts to its end; return exit code, stdout and stderr."""
    with tempfile.TemporaryDirectory() as directory:
        outputs = (Path(directory) / "stdout", Path(directory) / "stderr")
        return Forked(command, env, outputs).wait(timeout_s), outputs[0].read_text(), outputs[1].read_text()


def _become(arguments: list[str], env: dict[str, str], outputs: tuple[Path, Path]) -> None:
    """Become the program: with its environment, outputs and arguments, as if newly started.

    It ends with the forking server, which ends with the test process.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    tests = multiprocessing.parent_process()
    if tests is None or not tests.is_alive():
        os._exit(1)  # the server may have ended before the kernel knew
    # The server waits for the end of each client that may request more forks; this process never does.
    os.close(_forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]  # the stub leaves it out
    for descriptor, path in enumerate(outputs, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = arguments
    random.seed()
    failpoints._armed = failpoints.armed(os.environ)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a process without them
