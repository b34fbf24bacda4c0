"""Ports of this host that servers of tests listen on."""

import socket

from bridge.dev.ports import HOST


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
