"""Free ports of this host for test servers."""

import socket

from bridge.dev.ports import HOST


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
