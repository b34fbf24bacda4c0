"""Wait until a child does its work, not only until it runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable

from bridge.dev.ports import HOST
from bridge.dev.services import Service
from bridge.errors import ConfigError

# Two seconds on an idle machine, several times that beside a busy test suite; the last resort against a hang.
READY_TIMEOUT_S = 60.0
# A second or two unless there is much of it; deliveries are taken all the while.
CATCH_UP_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 2.0
_POLL_S = 0.1
_SPOOLING, _RECALLED = "drxbridge_spooling_partitions", "drxbridge_dedupe_ready"


def wait_ready(service: Service, *, check: Callable[[], None]) -> None:
    """Return when it is ready.

    Args:
        service: Its child was started.
        check: Called while waiting; may raise to give up.

    Raises:
        ConfigError: It ended, or was not ready in time.
    """
    child = service.child
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(service):
        check()
        if not child.alive:
            msg = f"{child.name} ended with {child.exit_code}: {child.last_line}; see {child.log}"
            raise ConfigError(msg)
        if time.monotonic() > deadline:
            msg = f"{child.name} was not ready within {READY_TIMEOUT_S:.0f} s; see {child.log}"
            raise ConfigError(msg)
        time.sleep(_POLL_S)


def wait_caught_up(ingress: Service, *, check: Callable[[], None], timeout_s: float = CATCH_UP_TIMEOUT_S) -> int:
    """Return when what an earlier life left is taken up, or after a while; how many partitions still spool.

    From then on a delivery of whatever prescription is written directly, and a repeat of an earlier one is known.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        gauges = _gauges(ingress)
        left = int(gauges[_SPOOLING])
        if (not left and gauges[_RECALLED]) or time.monotonic() > deadline:
            return left
        check()
        time.sleep(_POLL_S)


def answers(port: int, path: str) -> bool:
    """Whether a loopback server answers 200."""
    return _get(port, path)[0] == http.HTTPStatus.OK


def _is_ready(service: Service) -> bool:
    status, content = _get(service.port, service.ready_path)
    if status != http.HTTPStatus.OK:
        return False
    results = json.loads(content)["checks"] if service.sound else {}
    return all(results.get(name) == "ok" for name in service.sound)


def _gauges(service: Service) -> dict[str, float]:
    _, content = _get(service.port, "/metrics")
    found = dict.fromkeys((_SPOOLING, _RECALLED), 0.0)
    for line in content.decode().splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name] = float(value)
    return found


def _get(port: int, path: str) -> tuple[int, bytes]:
    """Ask a loopback server directly, whatever proxy the environment names; status 0 when it does not answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
