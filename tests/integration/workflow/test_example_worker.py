"""The worker of `docs/examples/temporal`, on a server with virtual time, fed by the consumer."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import orjson
from aiohttp import web
from google.protobuf.duration_pb2 import Duration
from temporalio.api.testservice.v1 import SleepRequest  # noqa: TID251 - the peer's own client
from temporalio.client import Client  # noqa: TID251 - as above

from bridge.dev.processes import launched
from consumers.testing import an_event, running
from consumers.workflow.consumer import open_workflow
from tests.endpoint import an_endpoint
from tests.installed import ROOT
from tests.kafka import until
from tests.temporal.histories import a_client
from tests.temporal.server import TemporalServer

WORKER = ROOT / "docs" / "examples" / "temporal" / "worker.py"


@contextmanager
def a_worker(temporal: TemporalServer, url: str, log: Path) -> Iterator[None]:
    addresses = {"TEMPORAL_ADDRESS": temporal.address, "ESCALATION_URL": url}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **addresses}
    with log.open("wb") as output:
        command = launched([sys.executable, str(WORKER)])
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603 - ours
    yield
    assert process.poll() is None, log.read_text()[-2000:]
    process.kill()
    process.wait()


async def pass_time(client: Client, time: timedelta) -> None:
    duration = Duration()
    duration.FromTimedelta(time)
    await client.service_client.test_service.unlock_time_skipping_with_sleep(SleepRequest(duration=duration))


async def test_a_renewal_reminds_after_three_days_and_escalates_after_fourteen(
    temporal: TemporalServer, tmp_path: Path
) -> None:
    key, answered = f"rx_{uuid4().hex}", f"rx_{uuid4().hex}"
    options = {"address": temporal.address, "allow_plaintext": "true", "timers": "off"}
    told: list[tuple[str, str]] = []

    async def desk(request: web.BaseRequest) -> web.StreamResponse:
        said = orjson.loads(await request.read())
        told.append((said["word"], said["about"].get("key") or said["about"]["subject"]))
        return web.Response(status=204)

    def words(of: str) -> list[str]:
        return [word for word, about in told if about == of]

    async with (
        an_endpoint(desk) as url,
        a_client(temporal.address) as client,
        running(open_workflow, options=options) as consumer,
    ):
        with a_worker(temporal, url, tmp_path / "worker.log"):
            await consumer.feed(
                an_event("renewal.requested", key=key, request_id=key),
                an_event("renewal.requested", key=answered, request_id=answered),
                an_event("renewal.responded", key=answered, request_id=answered, id="evt_answer"),
            )
            # The answer had come before any time has passed.
            assert await client.get_workflow_handle(f"renewal:drx:{answered}").result() == "evt_answer"
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
