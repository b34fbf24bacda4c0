"""The worker of `docs/examples/temporal`, on a server whose days pass at once, fed by the consumer."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import orjson
import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.testservice.v1 import SleepRequest  # noqa: TID251 - the peer's own client
from temporalio.client import Client  # noqa: TID251 - as above

from bridge.dev.processes import launched
from consumers.testing import an_event, running
from consumers.workflow.consumer import open_workflow
from tests.faults.away import HOST, AwayServer
from tests.installed import ROOT
from tests.kafka import until
from tests.temporal.histories import a_client
from tests.temporal.server import TemporalServer

WORKER = ROOT / "docs" / "examples" / "temporal" / "worker.py"


class Desk(AwayServer):
    """Reads what workflows have to tell.

    Attributes:
        told: Word and id of what each was about, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []

    def bound(self) -> ThreadingHTTPServer:
        return ThreadingHTTPServer((HOST, self.port), type("Handler", (_Handler,), {"desk": self}))


class _Handler(BaseHTTPRequestHandler):
    desk: Desk

    def do_POST(self) -> None:
        said = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        self.desk.told.append((said["word"], said["about"].get("key") or said["about"]["subject"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with Desk() as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(temporal: TemporalServer, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run the worker; how it ends says nothing."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TEMPORAL_ADDRESS": temporal.address,
        "ESCALATION_URL": f"http://{HOST}:{desk.port}/",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - ours
            launched([sys.executable, str(WORKER)]), stdout=output, stderr=output, env=environment
        )
    yield
    assert process.poll() is None, log.read_text()[-2000:]
    process.kill()
    process.wait()


async def pass_time(client: Client, time: timedelta) -> None:
    duration = Duration()
    duration.FromTimedelta(time)
    await client.service_client.test_service.unlock_time_skipping_with_sleep(SleepRequest(duration=duration))


@pytest.mark.usefixtures("worker")
async def test_a_renewal_reminds_after_three_days_and_escalates_after_fourteen(
    temporal: TemporalServer, desk: Desk
) -> None:
    key, answered = f"rx_{uuid4().hex}", f"rx_{uuid4().hex}"
    options = {"address": temporal.address, "allow_plaintext": "true", "timers": "off"}
    async with a_client(temporal.address) as client, running(open_workflow, options=options) as consumer:

        def words(of: str) -> list[str]:
            return [word for word, about in desk.told if about == of]

        await consumer.feed(
            an_event("renewal.requested", key=key, request_id=key),
            an_event("renewal.requested", key=answered, request_id=answered),
            an_event("renewal.responded", key=answered, request_id=answered, id="evt_answer"),
        )
        # The answer had come before any time has passed.
        done = client.get_workflow_handle(f"renewal:drx:{answered}")
        assert await done.result() == "evt_answer"
        await pass_time(client, timedelta(days=2, hours=23))
        assert words(key) == []

        await pass_time(client, timedelta(hours=2))
        await until(lambda: words(key) == ["remind"])
        await pass_time(client, timedelta(days=10, hours=22))
        assert words(key) == ["remind"]

        await pass_time(client, timedelta(hours=2))
        await until(lambda: words(key) == ["remind", "escalate"])
        await consumer.feed(an_event("renewal.closed", key=key, request_id=key, id="evt_closed"))
        assert await client.get_workflow_handle(f"renewal:drx:{key}").result() == "evt_closed"
        assert words(answered) == []
