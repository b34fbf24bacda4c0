"""Processes of ours, forked from one that has imported what they need: a second of CPU less for each.

What a process would read at its start, before its first line (`LD_PRELOAD`), it cannot be given: `can_fork` says so.
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
# What `serve`, `run` and the commands import once they know what is asked for, too.
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

# A start asks every other process whether it has ended, and of two threads that ask one gets a wrong answer.
_LOCK = threading.Lock()
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(IMPORTED)


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Say whether it makes no difference to the program that it is forked."""
    python, module, program, *_ = [*command, "", "", ""]
    return (
        (python, module) == (sys.executable, "-m") and program in PROGRAMS and not any(name in env for name in AT_START)
    )


class Forked:
    """A running program of ours; what tests ask of it is named as in `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], outputs: tuple[Path, Path]) -> None:
        for path in outputs:
            path.touch()
        arguments = (list(command[2:]), dict(env), outputs)
        self._process = _CONTEXT.Process(target=_become, args=arguments, daemon=True)
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
    """Run what `can_fork` to its end; return exit code, stdout and stderr."""
    with tempfile.TemporaryDirectory() as directory:
        outputs = (Path(directory) / "stdout", Path(directory) / "stderr")
        code = Forked(command, env, outputs).wait(timeout_s)
        return code, outputs[0].read_text(), outputs[1].read_text()


def _become(arguments: list[str], env: dict[str, str], outputs: tuple[Path, Path]) -> None:
    """Be the program from here on: with its environment, outputs and arguments, as if it had just been started.

    The server that forks it ends with the process of the tests, and it with the server.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    tests = multiprocessing.parent_process()
    if tests is None or not tests.is_alive():
        os._exit(1)  # the server may have ended before the kernel knew
    # The server waits for the end of each process that may have it fork more, and this one never will.
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
