"""Become another program that dies with the process that started it: `python tether.py PARENT_PID PROGRAM ARG…`.

A program of its own, because between fork and exec in a process with threads nothing but exec is safe, and small,
because it runs once for every process of the stack. It imports nothing of the bridge.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# Source: linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Ask the kernel for SIGKILL at the parent's end, then exec; elsewhere than on Linux only exec."""
    parent, program = int(argv[1]), argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It died before the kernel knew.
            os._exit(1)
    # Python ignores it and exec would hand that on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(program[0], program)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv)
