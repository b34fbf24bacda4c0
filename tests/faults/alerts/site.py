"""A complete monitored installation: broker, database, ingress, two consumers, Prometheus, Alertmanager."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import orjson

from bridge.app import HEARTBEAT_S
from bridge.dev.files import write_text
from bridge.dev.kafka import create_topics
from tests.builders import KEY, SECRET, a_body, signed_headers
from tests.cluster import STANDARD_TOPICS, Cluster
from tests.faults.alerts.scaling import scaled_query
from tests.faults.alerts.servers import FACTOR, Prometheus, need, watching
from tests.http_server import served
from tests.integration.consumer_process import ConsumerProcess, install_code
from tests.integration.ingress_process import IngressProcess
from tests.integration.service_process import HANG_S, PROBE_S, until
from tests.patched import patched
from tests.postgres import EmbeddedPostgres


class Notice(NamedTuple):
    """A notification that an alert fires or is resolved."""

    name: str
    severity: str
    firing: bool
    labels: frozenset[tuple[str, str]]  # they distinguish it from others of its name
    at: float  # by `time.monotonic`


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
        with self._came:
            return self._notices[count:]

    def open(self) -> set[str]:
        last = {each.labels: each for each in self.since(0)}
        return {each.name for each in last.values() if each.firing}

    def wait(self, name: str, severity: str, *, firing: bool, since: int) -> Notice:
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


EVENTS = "drx.prescriptions.v1"
# Ten seconds of a few deliveries fill it.
CAPACITY_BYTES = 4 * 1024 * 1024
# A consumer beside the read model.
_DESK = f"""
from consumers.api import Consumer, Lanes
consumer = Consumer(name="desk", topics=["{EVENTS}"], mode=Lanes(4), group="desk")
@consumer.handler
async def handle(event, context):
    pass
"""
_INGRESS = {
    "HEARTBEAT__ENABLED": "true",
    "SPOOL__CAPACITY_BYTES": f"{CAPACITY_BYTES}",
    # What is spooled waits half of it: the default would be late by the objectives, and seconds are minutes here.
    "HTTP__DEADLINE_S": "2",
}
# As the rules, whose alert misses four heartbeats: `FACTOR` times as fast.
_COMMAND = patched("bridge", "serve", HEARTBEAT_S=HEARTBEAT_S / FACTOR)
# Of the secret; far away by any factor, and without one there would be nothing to show.
_END = datetime(2099, 1, 1, tzinfo=UTC)
# Of the ten that there are in five minutes.
_SCRAPES_MIN = 8


@dataclass(frozen=True, slots=True)
class Site:
    """The installation for faults; `began` is the Unix time of Prometheus's first data, `played` titles of faults."""

    cluster: Cluster
    postgres: EmbeddedPostgres
    ingress: IngressProcess
    reader: ConsumerProcess
    desk: ConsumerProcess
    inbox: Inbox
    prometheus: Prometheus
    began: float = field(default_factory=time.time)
    played: set[str] = field(default_factory=set)

    def deliver(self, body: bytes, *, age_s: int = 0, key: bytes = KEY) -> int:
        headers = signed_headers(body, webhook_id=orjson.loads(body)["id"], timestamp=int(time.time()) - age_s, key=key)
        request = Request(self.ingress.webhook_url, data=body, headers=headers, method="POST")  # noqa: S310 - http to ourselves
        try:
            with urlopen(request, timeout=PROBE_S) as answer:  # noqa: S310 - as above
                return int(answer.status)
        except HTTPError as exc:
            exc.close()
            return exc.code

    def keep_secret(self, *, until: datetime = _END) -> None:
        write_text(self.ingress.secrets_dir / "current", f"{SECRET}\naccept_until = {until:%Y-%m-%dT%H:%M:%SZ}\n")

    def well(self) -> None:
        """Wait until every target has been up for a while, the spool is empty, and heartbeats arrive."""
        until(self._is_well, what="a healthy installation")

    def calm(self) -> None:
        try:
            until(self._is_calm, what="calm")
        except AssertionError as exc:
            exc.add_note(f"alerts: {self.prometheus.alerts()}, delivered: {self.inbox.open()}")
            raise

    def seen(self) -> None:
        now = time.time()
        until(lambda: self.now(f"min(timestamp(up)) > {now}"), what="a scrape of every target")

    def now(self, query: str) -> float | None:
        """Return the current number of a query, scaled like the rules."""
        return self.prometheus.value(scaled_query(query, FACTOR))

    def _is_calm(self) -> bool:
        alarmed = {*self.prometheus.alerts(), *self.inbox.open()}
        return not alarmed and self._is_well()

    def _is_well(self) -> bool:
        return (
            self.now("min(min_over_time(up[5m]))") == 1
            and (self.now("min(count_over_time(up[5m]))") or 0) >= _SCRAPES_MIN
            and self.now("sum(drxbridge_spool_events)") == 0
            and self.now("min(drxbridge_dedupe_ready)") == 1
            and self.now("time() - min(drxbridge_heartbeat_last_seen_timestamp_seconds) < 60") is not None
        )


def an_event(**changes: Any) -> bytes:
    word = uuid4().hex
    return a_body(**({"id": f"evt_{word}", "data_prescription_id": f"rx_{word}"} | changes))


@contextmanager
def open_site(
    make_cluster: Callable[[int], Cluster], make_postgres: Callable[[], EmbeddedPostgres], directory: Path
) -> Iterator[Site]:
    need()  # before anything is started that would not be needed
    cluster, postgres = make_cluster(1), make_postgres()
    try:
        create_topics(cluster.bootstrap_servers, STANDARD_TOPICS)
        servers: dict[str, Any] = {
            "bootstrap_servers": cluster.bootstrap_servers,
            "dsn": postgres.dsn,
            "KAFKA__SESSION_S": "6",
        }
        package = install_code(directory / "package", "desk", _DESK)
        with (
            listening() as inbox,
            IngressProcess(directory / "ingress", cluster.bootstrap_servers, command=_COMMAND, **_INGRESS) as ingress,
            ConsumerProcess(directory / "consumers", "read_model", **servers) as reader,
            ConsumerProcess(directory / "consumers", "desk", env=package, **servers) as desk,
        ):
            _ready(ingress, reader, desk)
            targets = {
                "ingress": [ingress.management_url],
                "read_model": [reader.management_url],
                "desk": [desk.management_url],
            }
            with watching(directory / "watch", targets=targets, webhook=inbox.url) as prometheus:
                site = Site(cluster, postgres, ingress, reader, desk, inbox, prometheus)
                site.keep_secret()
                yield site
    finally:
        postgres.close()
        cluster.stop()


def _ready(ingress: IngressProcess, *consumers: ConsumerProcess) -> None:
    ingress.ready()
    for each in consumers:
        each.ready()
