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
# Further connections accepted with one, as many as requests are taken in one loop iteration: some milliseconds.
ACCEPT_MAX = 32
# Buffer bytes per socket: some hundred responses, or a quarter of the largest usual body. Linux would buffer up to
# 6 MiB, and every connection may be read before the memory of a closed one is freed.
KERNEL_MAX_BYTES = 65_536
# Open files needed besides client connections: brokers, spool, secrets, probes.
FILES_SPARE = 256


async def listen(protocol: Callable[[], asyncio.Protocol], host: str, port: int, *, section: str) -> asyncio.Server:
    """Accept connections; `ConfigError` names the variables of the address, which begin with `section`."""

    def first() -> asyncio.Protocol:  # uvloop accepts one per loop iteration, so a flood would keep senders waiting
        accept_all(listener, protocol, most=ACCEPT_MAX)
        return protocol()

    try:
        listener = await asyncio.get_running_loop().create_server(
            first, host, port, backlog=BACKLOG, start_serving=False
        )
        for each in listener.sockets:  # connections inherit it
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_MAX_BYTES)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_MAX_BYTES)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await listener.start_serving()
    except (OSError, UnicodeError) as exc:  # `UnicodeError` for a name that cannot be looked up, such as `a..b`
        why = "no such host"
        if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror):
            why = os.strerror(exc.errno or 0)
        msg = f"{section}__HOST, {section}__PORT: cannot listen on {host}:{port} ({why}); choose another"
        raise ConfigError(msg) from None
    return listener


def allow_connections(most: int) -> int:
    """Raise the limit of open files for `most` connections, as far as permitted; return how many it suffices for."""
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(limit, min(hard, most + BACKLOG + FILES_SPARE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(1, min(most, limit - FILES_SPARE))


def accept_all(
    listener: asyncio.Server, protocol: Callable[[], asyncio.Protocol], *, most: int = BACKLOG
) -> asyncio.Future[list[object]]:
    """Accept pending connections, which closing the listener would reset; the future ends when they are open."""
    accepted: list[socket.socket] = []
    for each in listener.sockets:
        own = socket.socket(each.family, each.type, fileno=each.fileno())
        own.settimeout(0)
        with contextlib.suppress(OSError):
            while len(accepted) < most:
                accepted.append(own.accept()[0])
                accepted[-1].settimeout(0)
        own.detach()
    connect = asyncio.get_running_loop().connect_accepted_socket
    return asyncio.gather(*(connect(protocol, each) for each in accepted), return_exceptions=True)
