"""Listen on an address, with enough open files, bounded kernel buffers, and errors that name the setting."""

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable

from bridge.errors import ConfigError

# Connections the kernel may hold before `accept`; Linux caps it by net.core.somaxconn (4096 since 5.4).
BACKLOG = 1024
# Buffer bytes per socket: some hundred answers, or a quarter of the largest usual body. Linux would buffer up to 6 MiB,
# and every connection may be read before the memory of a closed one is freed.
KERNEL_MAX_BYTES = 65_536
# Open files needed besides client connections: brokers, spool, secrets, probes.
FILES_SPARE = 256


async def listen(
    protocol: Callable[[], asyncio.Protocol], host: str, port: int, *, connections_max: int, section: str
) -> asyncio.Server:
    """Accept connections; `ConfigError` names the variables of the address, which begin with `section`."""
    _allow_files(connections_max + BACKLOG + FILES_SPARE)
    try:
        listener = await asyncio.get_running_loop().create_server(protocol, host, port, backlog=BACKLOG)
    except (OSError, UnicodeError) as exc:  # the latter for a name that cannot be looked up, such as `a..b`
        why = "no such host"
        if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror):
            why = os.strerror(exc.errno or 0)
        msg = f"{section}__HOST, {section}__PORT: cannot listen on {host}:{port} ({why}); choose another"
        raise ConfigError(msg) from None
    for each in listener.sockets:  # connections inherit it
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_MAX_BYTES)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_MAX_BYTES)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return listener


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files to `wanted`, as far as the system permits."""
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit, min(hard, wanted)), hard))


def accept_all(listener: asyncio.Server) -> list[socket.socket]:
    """Accept all pending connections, since the kernel would reset them when the listener closes."""
    accepted: list[socket.socket] = []
    for each in listener.sockets:
        with socket.socket(fileno=os.dup(each.fileno())) as own, contextlib.suppress(OSError):
            own.settimeout(0)
            while len(accepted) < BACKLOG:
                accepted.append(own.accept()[0])
    for connection in accepted:
        connection.settimeout(0)
    return accepted
