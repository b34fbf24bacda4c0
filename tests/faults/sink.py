"""A service that handlers call: it may be away, or fail some calls; it keeps what it was told, in order."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson

from bridge.dev.ports import free_port

HOST = "127.0.0.1"


class Sink:
    """An HTTP server of this process; the same event is the same effect, however often it is told.

    Attributes:
        told: For each group and key the ids of its events, in the order of their first calls that passed.
        posted: For each group the id of each event that `forward` has posted to it, to the bodies that it had.
        failed: Calls that it failed on purpose.
    """

    def __init__(self, seed: int) -> None:
        """Listen to nobody yet; chance is drawn from `seed`."""
        self._rng = random.Random(seed)  # noqa: S311 - no key
        self._percent = 0
        self._lock = threading.Lock()
        self._port = free_port()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.told: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.posted: defaultdict[str, defaultdict[str, set[bytes]]] = defaultdict(lambda: defaultdict(set))
        self.failed = 0

    def __enter__(self) -> Self:
        """Listen."""
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, or will."""
        return f"http://{HOST}:{self._port}/"

    def fail(self, percent: int) -> None:
        """Fail so many of a hundred calls from now on: half of them with 503, half without any answer."""
        self._percent = percent

    def open(self) -> None:
        """Be there again."""
        handler = type("Handler", (_Handler,), {"sink": self})
        self._server = ThreadingHTTPServer((HOST, self._port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """Go away: who connects now is refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = None

    def told_of(self, group: str) -> dict[str, list[str]]:
        """What it was told by one group, by key."""
        return {key: ids for (of, key), ids in self.told.items() if of == group}

    def answer(self, said: dict[str, str]) -> int:
        """Take what is said and return the status of the answer; 0 when there is none."""
        with self._lock:
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
        """Answer a ping."""
        self._answer({})

    def do_POST(self) -> None:
        """Take an event, as the appender says it or as `forward` posts it to `/GROUP`."""
        body = self.rfile.read(int(self.headers["content-length"]))
        said = orjson.loads(body)
        event_id = self.headers["webhook-id"]
        if event_id is not None:
            group = self.path.removeprefix("/")
            self.sink.posted[group][event_id].add(body)
            said = {"group": group, "key": said["data"]["prescription_id"], "id": event_id}
        self._answer(said)

    def _answer(self, said: dict[str, str]) -> None:
        status = self.sink.answer(said)
        if status:
            self.send_response(status)
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
