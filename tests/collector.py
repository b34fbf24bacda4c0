"""An OpenTelemetry collector for tests: accepts OTLP/HTTP and stores the spans; needs the extra `otel`.

The real OpenTelemetry Collector may run in front of it. `make otelcol` compiles that from `tests/otelcol`; without it,
the tests that need it are skipped.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bridge.dev.ports import HOST, free_port
from tests.http_server import served
from tests.java_program import start
from tests.ports import listens

OTELCOL = Path(__file__).parents[1] / "build" / "tools" / "otelcol"


@dataclass
class Collector:
    """Stores received spans; while `open` is not set, it accepts connections but does not respond."""

    url: str = ""
    requests: list[Any] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)

    def spans(self, name: str = "") -> list[Any]:
        scopes = [scope for each in self.requests for one in each.resource_spans for scope in one.scope_spans]
        return [span for scope in scopes for span in scope.spans if name in {"", span.name}]

    def resource(self) -> dict[str, Any]:
        return attributes(self.requests[0].resource_spans[0].resource)


def attributes(of: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in of.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="extra `otel`")
    collector = Collector()
    collector.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.asked.set()
            collector.open.wait()
            collector.requests.append(service.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with served(Handler) as collector.url:
        try:
            yield collector
        finally:
            collector.open.set()


@contextmanager
def through_otelcol(collector: Collector, log: Path) -> Iterator[str]:
    """Run the OpenTelemetry Collector in front of `collector`, which receives its output; yield its URL."""
    if not OTELCOL.exists():
        pytest.skip("no OpenTelemetry Collector: `make otelcol` compiles it, with Go")
    port = free_port()
    # Without a queue it responds after `collector` has.
    to = {"endpoint": collector.url, "compression": "none", "sending_queue": {"enabled": False}}
    config = {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{HOST}:{port}"}}}},
        "exporters": {"otlp_http": to},
        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["otlp_http"]}}},
    }
    process = start([str(OTELCOL), f"--config=yaml:{json.dumps(config)}"], log, is_ready=lambda: listens(port))
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.kill()
        process.wait()
