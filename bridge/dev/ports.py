"""Give each server of the stack a free loopback port and keep it over restarts."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from bridge.dev.files import read_json, write_json

HOST = "127.0.0.1"
# Below the ephemeral ranges of Linux (32768 on) and macOS (49152 on): a client that calls a server which is down may be
# given that very port as its own end, connect to itself and keep the server from coming back.
_FIRST, _LAST = 15_000, 32_000
# Both ends inclusive; with one port in ten taken, a hundred draws fail once in 10^100.
_DRAWS = 100


def is_free(port: int) -> bool:
    """Try to bind it, as the server will."""
    with contextlib.closing(socket.socket()) as probe:
        # As Java and asyncio do; else the last connections of a stopped server keep its port for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(taken: Iterable[int] = ()) -> int:
    """Draw a free port that is not among `taken`."""
    avoid = set(taken)
    for _ in range(_DRAWS):
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - a port number is no secret
        if port not in avoid and is_free(port):
            return port
    msg = f"no free port between {_FIRST} and {_LAST}"
    raise OSError(msg)


def stable_ports(path: Path, *, names: Iterable[str]) -> dict[str, int]:
    """Ports by name: those of the last time as far as they are free, from the file at `path`, which is updated."""
    known = read_json(path)
    ports: dict[str, int] = {}
    for name in names:
        last = known.get(name)
        if isinstance(last, int) and last not in ports.values() and is_free(last):
            ports[name] = last
        else:
            ports[name] = free_port(ports.values())
    write_json(path, {**known, **ports})
    return ports
