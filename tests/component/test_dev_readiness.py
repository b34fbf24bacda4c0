"""`dev` says that it is there when the next delivery will go straight to Kafka, not merely to the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bridge.dev.files import claim
from bridge.dev.processes import nothing
from bridge.dev.services import Service, wait_caught_up
from bridge.errors import ConfigError


@contextmanager
def a_server(*answers: tuple[int, str]) -> Iterator[tuple[int, list[str]]]:
    """Give each of these answers in turn, the last one for ever, at a port; also the list of paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            """Keep standard error clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def readiness(status: str, **checks: str) -> tuple[int, str]:
    return 503 if status == "unavailable" else 200, json.dumps({"status": status, "checks": checks})


def gauges(spooling: int, recalled: int) -> tuple[int, str]:
    return 200, f"# HELP x\ndrxbridge_spooling_partitions {spooling}.0\ndrxbridge_dedupe_ready {recalled}.0\n"


def test_it_waits_for_kafka_although_less_would_do_and_not_for_one_that_ended(tmp_path: Path) -> None:
    answers = (
        (503, "not yet"),
        readiness("unavailable", kafka="connecting", topics="ok", spool="ok"),
        readiness("degraded", kafka="degraded", topics="ok", spool="ok"),
        readiness("degraded", kafka="ok", topics="degraded", spool="ok"),
        readiness("degraded", kafka="ok", topics="ok", spool="degraded"),
        readiness("unavailable"),
    )
    with a_server(*answers) as (port, asked), claim(tmp_path) as directory:
        ingress = Service("ingress", "http.server", "0", directory=directory, port=port, sound=("kafka", "topics"))
        ingress.start()
        ingress.wait_ready()
        assert asked == ["/readyz"] * 5

        ingress.kill()
        with pytest.raises(ConfigError, match="ingress ended with -9"):
            ingress.wait_ready()


def test_what_was_spooled_and_what_is_remembered_are_waited_for() -> None:
    with a_server((503, ""), gauges(3, 0), gauges(0, 0), gauges(2, 1), gauges(0, 1)) as (port, asked):
        assert wait_caught_up(port, check=nothing) == 0

    assert asked == ["/metrics"] * 5


def test_what_cannot_be_drained_is_waited_for_only_a_while() -> None:
    with a_server(gauges(2, 1)) as (port, _):
        assert wait_caught_up(port, check=nothing, timeout_s=0.0) == 2
