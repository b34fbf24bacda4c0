"""Become a program that dies with the process that started it: `python launch.py PARENT_PID USER PROGRAM ARG…`.

USER is `UID:GID`, or `-` to stay who we are. PostgreSQL refuses to run as root, but its programs and its files may lie
below directories that only root may enter; so another user takes one capability of root along: to pass by the
permissions of files.

A program of its own, because between fork and exec in a process with threads nothing but exec is safe, and small,
because it runs once for every process of the stack. It imports nothing of the bridge.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# Source: linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 1, 8, 28, 47
_PR_CAP_AMBIENT_RAISE = 2
# Source: linux/securebits.h.
_SECBIT_NO_SETUID_FIXUP = 1 << 2
# Source: linux/capability.h.
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1
# As a shell says "found, but cannot be run".
CANNOT_RUN = 126
_LIBC = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> None:
    """Change the user, tie the process to its parent, exec."""
    parent, user, program = int(argv[1]), argv[2], argv[3:]
    try:
        if user != "-":
            _become(*map(int, user.split(":")))
        # After the change of user, at which the kernel forgets it.
        end_with_parent()
        if sys.platform == "linux" and os.getppid() != parent:
            # It died before the kernel knew.
            os._exit(1)
        # Python ignores it and exec would hand that on.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(program[0], program)  # noqa: S606 - no shell is the point
    except OSError as exc:
        whom = "" if user == "-" else f" as user {user.partition(':')[0]}"
        sys.stderr.write(f"{program[0]}: cannot run{whom}: {exc.strerror}\n")
        sys.exit(CANNOT_RUN)


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends; elsewhere than on Linux, do nothing."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _become(uid: int, gid: int) -> None:
    if sys.platform == "linux":
        _prctl(_PR_SET_KEEPCAPS, 1)
        # Else access(2), by which PostgreSQL looks for its own programs, leaves capabilities out of account.
        _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        _keep_only(_CAP_DAC_OVERRIDE)
        # What is ambient outlives an exec.
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def _keep_only(capability: int) -> None:
    """Drop every other capability, and make this one inheritable, without which none is ambient."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    # Effective, permitted, inheritable: of capabilities 0 to 31, then of the others.
    _check(_LIBC.capset(header, (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)))


def _prctl(*arguments: object) -> None:
    _check(_LIBC.prctl(*arguments))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv)
