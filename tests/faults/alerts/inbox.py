"""Where Alertmanager delivers: everything that it says, with the time at which it said so."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple

import orjson

from tests.http_server import served
from tests.integration.service_process import HANG_S


class Notice(NamedTuple):
    """That an alert fires, or does no more.

    Attributes:
        labels: What tells it from others of its name.
        at: By `time.monotonic`.
    """

    name: str
    severity: str
    firing: bool
    labels: frozenset[tuple[str, str]]
    at: float


class Inbox:
    def __init__(self) -> None:
        self.url = ""
        self._came = threading.Condition()
        self._notices: list[Notice] = []

    @property
    def count(self) -> int:
        with self._came:
            return len(self._notices)

    def since(self, count: int) -> list[Notice]:
        """Return those that came after the first `count`."""
        with self._came:
            return self._notices[count:]

    def open(self) -> set[str]:
        """Return the names of what fires by the last that was heard of it."""
        last = {each.labels: each for each in self.since(0)}
        return {each.name for each in last.values() if each.firing}

    def wait(self, name: str, severity: str, *, firing: bool, since: int) -> Notice:
        """Return the first such notice after the first `since` of all; wait for it if need be."""

        def found() -> Notice | None:
            wanted = (name, severity, firing)
            return next((each for each in self._notices[since:] if each[:3] == wanted), None)

        with self._came:
            notice = self._came.wait_for(found, HANG_S)
            said = [(each.name, each.firing) for each in self._notices[since:]]
        assert notice is not None, f"waited in vain: {name}, firing {firing}; came: {said}"
        return notice

    def take(self, body: bytes) -> None:
        at = time.monotonic()
        with self._came:
            for alert in orjson.loads(body)["alerts"]:
                labels: dict[str, str] = alert["labels"]
                firing = alert["status"] == "firing"
                key = frozenset(labels.items())
                self._notices.append(Notice(labels["alertname"], labels["severity"], firing, key, at))
            self._came.notify_all()


@contextmanager
def listening() -> Iterator[Inbox]:
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

    with served(Handler) as inbox.url:
        yield inbox
