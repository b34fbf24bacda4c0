"""Assign each server of the stack a free loopback port and keep it across restarts.

Until its server binds a port, and while that server is down, others could take the port. So the process that draws a
port locks the byte at that offset of a file in this user's cache, and other processes do not draw it.
"""

import contextlib
import fcntl
import os
import random
import socket
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from bridge.dev.files import read_json, write_json
from bridge.dev.jars import cache_dir

HOST = "127.0.0.1"
# Below the ephemeral ranges of Linux (32768 on) and macOS (49152 on). A client that calls a stopped server could
# otherwise get that port as its own, connect to itself and block the server.
_FIRST, _LAST = 15_000, 32_000
# Inclusive range, and draws: with one port in ten taken, a hundred draws fail once in 10^100.
_DRAWS = 100
# Drawn by this process: record locks do not exclude within one process.
_ours: set[int] = set()


def is_free(port: int) -> bool:
    """Return whether a port can be bound."""
    with contextlib.closing(socket.socket()) as probe:
        # As Java and asyncio do; otherwise old connections of a stopped server keep its port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Draw a free port that is not drawn again while this process runs."""
    for _ in range(_DRAWS):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - a port number is no secret
        if port not in _ours and _reserve(port) and is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")


def stable_ports(path: Path, *, names: Iterable[str]) -> dict[str, int]:
    """Return ports by name: from the file at `path` if they are free, else new ports; update the file."""
    known: dict[str, int] = read_json(path)
    ports = {}
    for name in names:
        last = known.get(name, 0)
        ports[name] = last if last and _reserve(last) and is_free(last) else free_port()
    write_json(path, {**known, **ports})
    return ports


def _reserve(port: int) -> bool:
    """Reserve a port against other processes; False if one of them has it."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return False
    _ours.add(port)
    return True


@cache
def _reservations() -> int:
    """Return the only descriptor of the file, since closing any descriptor releases all locks."""
    directory = cache_dir()
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory / "ports", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
