import asyncio
import csv
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from bridge.dev.ports import HOST, free_port
from tests import snippets
from tests.integration.ingress_process import IngressProcess
from tests.integration.proxies import serving
from tests.integration.service_process import until

# As `preStop.sleep` of a pod: what is routed elsewhere must have arrived everywhere before the process is told to end.
PRE_STOP_S = 1.0
_CONFIG = """\
global
    stats socket {directory}/haproxy.sock level admin
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend public
    bind {host}:{port}
    default_backend bridge
backend bridge
{policy}
{servers}
"""
ROUND_ROBIN = "    balance roundrobin"
# The configuration of docs/operations.md, with other servers.
BY_SOURCE = snippets.haproxy().partition("\n")[2].partition("    server ")[0].rstrip()
# Column of the statistics: requests that a server was given.
_TAKEN = "stot"


class Balancer:
    def __init__(self, directory: Path, replicas: Sequence[IngressProcess], *, policy: str = ROUND_ROBIN) -> None:
        """Balance between `replicas`, whose addresses stay the same from run to run."""
        self._directory, self._policy = directory, policy
        self._replicas = replicas
        self._port = free_port()
        self.url = f"http://{HOST}:{self._port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        servers = (
            f"    server s{number} {HOST}:{urlsplit(each.url).port} port {urlsplit(each.management_url).port}"
            for number, each in enumerate(self._replicas)
        )
        place = {"directory": self._directory, "host": HOST, "port": self._port}
        text = _CONFIG.format(**place, policy=self._policy, servers="\n".join(servers))
        with serving("haproxy", text, self._port, self._directory):
            # The socket of its statistics comes a moment before anything listens there.
            until(lambda: _answers(self._directory), what="a balancer")
            yield

    async def replace(self, number: int) -> None:
        """Remove one replica from the rotation, stop and start it, and add it when it is ready."""
        replica = self._replicas[number]
        self._say(f"set server bridge/s{number} state drain")
        await asyncio.sleep(PRE_STOP_S)
        assert await replica.end(signal.SIGTERM) == 0, replica.output()
        replica.start()
        await asyncio.to_thread(replica.ready)
        self._say(f"set server bridge/s{number} state ready")

    def taken(self) -> list[int]:
        rows = list(csv.DictReader(_ask(self._directory, "show stat").lstrip("# ").splitlines()))
        return [int(row[_TAKEN]) for row in rows if row["pxname"] == "bridge" and row["svname"] != "BACKEND"]

    def _say(self, command: str) -> None:
        assert _ask(self._directory, command) == ""


def _ask(directory: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / "haproxy.sock"))
        connection.sendall(f"{command}\n".encode())
        with connection.makefile() as answer:
            return answer.read().strip()


def _answers(directory: Path) -> bool:
    try:
        return bool(_ask(directory, "show info"))
    except OSError:
        return False
