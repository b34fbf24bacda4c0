"""Freeze a process: its connections stay open and it does not respond."""

import contextlib
import os
import signal
import time
from pathlib import Path

# States of a thread that has not been stopped yet (proc_pid_stat(5)).
_RUNNING = frozenset("RSD")
# SIGSTOP takes effect at once unless a thread waits for a disk.
_WAIT_S = 10.0
_POLL_S = 0.001


def freeze(pid: int | None) -> None:
    """Stop it; return when none of its threads runs. An ended process is ignored."""
    _send(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _WAIT_S
    while pid is not None and _runs(pid) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def thaw(pid: int | None) -> None:
    _send(pid, signal.SIGCONT)


def _send(pid: int | None, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, number)


def _runs(pid: int) -> bool:
    """Whether a thread of a process may still run: a signal reaches those on another core a little later."""
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # the thread has ended
            if stat.read_text().rpartition(")")[2].split()[0] in _RUNNING:
                return True
    return False
