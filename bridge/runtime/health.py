"""The management port: liveness, readiness and metrics."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from bridge.runtime.http_server import HardenedServer, Request, Response

# Limits for broken clients; a probe or a scrape is a GET with few headers.
READ_TIMEOUT_S = 10.0
DRAIN_S = 1.0
# Seconds of shutdown: the drain, one second to close the rest, and a margin.
MANAGEMENT_CLOSE_S = 3.0
OPENMETRICS = "application/openmetrics-text"

Check = Callable[[], str]
"""Returns `ok`, the code of a failure, or `degraded` and a code if a restart or another replica would not help.
"""
Status = Literal["ok", "degraded", "unavailable"]

_NOT_FOUND = Response(404, b'{"code":"not_found"}')
_NOT_ALLOWED = Response(405, b'{"code":"method_not_allowed"}', headers=(("Allow", "GET, HEAD"),))


def judge(checks: Mapping[str, Check]) -> tuple[Status, dict[str, str], dict[str, str]]:
    """Return whether a process can work, the result of each check, and the codes of `degraded` ones."""
    parts = {name: check().partition(" ") for name, check in checks.items()}
    results = {name: result for name, (result, _, _) in parts.items()}
    reasons = {name: reason for name, (_, _, reason) in parts.items() if reason}
    found = set(results.values()) - {"ok"}
    return "unavailable" if found - {"degraded"} else "degraded" if found else "ok", results, reasons


class ManagementPort:
    """Serves `/livez`, `/readyz` and `/metrics`."""

    def __init__(
        self,
        *,
        checks: Mapping[str, Check],
        registry: CollectorRegistry,
        host: str,
        port: int,
        live: Check = lambda: "ok",
        section: str = "BRIDGE_MANAGEMENT",
    ) -> None:
        """`section` names the settings of the address; ready while no check fails, alive while `live` is `ok`."""
        self._server = HardenedServer(
            self, read_timeout_s=READ_TIMEOUT_S, host=host, port=port, section=section, drain_s=DRAIN_S
        )
        self.listening = self._server.listening  # set once it accepts connections
        self._live = live
        self._checks = checks
        self._registry = registry
        self._routes: dict[str, Callable[[Request], Response]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        await self._server.run(stop)

    def take(self, requests: Sequence[Request]) -> None:
        """Respond to each request."""
        for request in requests:
            request.respond(self.check(request))

    def check(self, request: Request) -> Response:
        """Route a request by its path; bodies are not used."""
        route = self._routes.get(request.path)
        if route is None:
            return _NOT_FOUND
        if request.method not in {"GET", "HEAD"}:
            return _NOT_ALLOWED
        return route(request)

    def _livez(self, _request: Request) -> Response:
        # The event loop works if this runs. An outage of Kafka must not affect liveness.
        result = self._live()
        if result == "ok":
            return Response(200, b'{"status":"ok"}')
        return Response(503, orjson.dumps({"status": "unavailable", "code": result}))

    def _readyz(self, _request: Request) -> Response:
        status, results, reasons = judge(self._checks)
        document = {"status": status, "checks": results} | ({"reasons": reasons} if reasons else {})
        return Response(503 if status == "unavailable" else 200, orjson.dumps(document))

    def _metrics(self, request: Request) -> Response:
        # Only the format is taken from Accept: other parts would be repeated in a header, or fail.
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in request.headers.get("Accept", "") else "")
        return Response(200, encode(self._registry), content_type=content_type)
