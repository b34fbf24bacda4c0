"""Become another program as another user who may enter what we may: `python unprivileged.py UID GID PROGRAM ARG…`.

PostgreSQL refuses to run as root, but its programs and its files may lie below directories that only root may enter.
So the user takes one capability of root along: to pass by the permissions of files. A program of its own for the
reasons that `tether.py` gives; it imports nothing of the bridge either.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Source: linux/prctl.h.
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG, _PR_SET_KEEPCAPS, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 1, 2, 8, 28, 47
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
    """Change the user, keep the tether to the parent, exec."""
    uid, gid, program = int(argv[1]), int(argv[2]), argv[3:]
    try:
        _become(uid, gid)
        os.execv(program[0], program)  # noqa: S606 - no shell is the point
    except OSError as exc:
        sys.stderr.write(f"{program[0]}: cannot run as user {uid}: {exc.strerror}\n")
        sys.exit(CANNOT_RUN)


def _become(uid: int, gid: int) -> None:
    if sys.platform != "linux":
        _change_user(uid, gid)
        return
    parent, tether = os.getppid(), ctypes.c_int()
    _prctl(_PR_GET_PDEATHSIG, ctypes.byref(tether))
    _prctl(_PR_SET_KEEPCAPS, 1)
    # Else access(2), by which PostgreSQL looks for its own programs, leaves capabilities out of account.
    _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    _change_user(uid, gid)
    _keep_only(_CAP_DAC_OVERRIDE)
    # What is ambient outlives an exec.
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
    # The kernel forgets it at a change of user.
    _prctl(_PR_SET_PDEATHSIG, tether.value)
    if tether.value and os.getppid() != parent:
        # It died before the kernel knew again.
        os._exit(1)


def _change_user(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


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
