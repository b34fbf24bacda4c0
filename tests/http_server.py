"""An HTTP server of the standard library on a thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bridge.dev.ports import HOST

# Interval of checks for the end of the test.
_LOOK_S = 0.02


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of loopback, without a log; yield the URL, without a path."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    with ThreadPoolExecutor() as pool, ThreadingHTTPServer((HOST, 0), quiet) as server:
        pool.submit(server.serve_forever, _LOOK_S)
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
