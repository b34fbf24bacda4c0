"""A service that handlers call: it may be down, or fail some calls; it stores events in order."""

import random
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from tests.faults.away import HOST, AwayServer


class Sink(AwayServer):
    """An HTTP server in this process; repeats of an event have no further effect."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)  # noqa: S311 - no key
        self._percent = 0
        self._lock = threading.Lock()
        # For each group and key the ids of its events, in the order of their first calls that passed.
        self.told: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        # For each group, event id to the bodies that `forward` has posted.
        self.posted: defaultdict[str, defaultdict[str, set[bytes]]] = defaultdict(lambda: defaultdict(set))
        self.failed = 0  # number of calls that it failed on purpose
        self.takes = True  # whether it accepts events; it always responds to pings

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def fail(self, percent: int) -> None:
        """Fail `percent` of the calls from now on: half of them with 503, half without a response."""
        self._percent = percent

    def endpoint(self, group: str, *, pause_s: float = 0.0) -> str:
        """Return the URL for the events of a group in `forward`; `pause_s` pass between an effect and its response."""
        return f"{self.url}{group}/{pause_s:g}"

    def bound(self) -> ThreadingHTTPServer:
        return ThreadingHTTPServer((HOST, self.port), type("Handler", (_Handler,), {"sink": self}))

    def told_of(self, group: str) -> dict[str, list[str]]:
        return {key: ids for (of, key), ids in self.told.items() if of == group}

    def answer(self, said: dict[str, str]) -> int:
        with self._lock:
            if said and not self.takes:
                return 503
            if self._rng.randrange(100) < self._percent:
                self.failed += 1
                return self._rng.choice((0, 503))
            if said:
                ids = self.told[said["group"], said["key"]]
                if said["id"] not in ids:
                    ids.append(said["id"])
            return 204


class _Handler(BaseHTTPRequestHandler):
    sink: Sink

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        said = orjson.loads(body)
        event_id = self.headers["webhook-id"]
        pause_s = 0.0
        if event_id is not None:
            _, group, pause = self.path.split("/")
            pause_s = float(pause)
            self.sink.posted[group][event_id].add(body)
            said = {"group": group, "key": said["data"]["prescription_id"], "id": event_id}
        self._answer(said, pause_s=pause_s)

    def _answer(self, said: dict[str, str], *, pause_s: float = 0.0) -> None:
        status = self.sink.answer(said)
        time.sleep(pause_s)
        if status:
            self.send_response(status)
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""
