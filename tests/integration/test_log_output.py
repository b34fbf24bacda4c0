"""An output that accepts no lines loses only lines: deliveries, probes and stops still work."""

import asyncio
import fcntl
import os
from io import FileIO
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from tests.builders import a_body
from tests.integration.ingress_process import IngressProcess, deliver, serve_command
from tests.integration.service_process import HANG_S

pytestmark = pytest.mark.kafka

# Their lines are four times what the smallest pipe holds.
DELIVERIES = 60
PIPE_BYTES = 4096
DROPPED = "drxbridge_log_dropped_total"


async def deliver_many(ingress: IngressProcess) -> set[int]:
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        return {
            (await deliver(session, ingress, a_body(data_prescription_id=f"rx_{n % 7}"), webhook_id=uuid4().hex)).status
            for n in range(DELIVERIES)
        }


async def test_nobody_reads_the_log(kafka: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    to_pipe = type("ToPipe", (IngressProcess,), {"stdout": writing})
    with FileIO(reading), FileIO(writing, "w"), to_pipe(tmp_path, kafka) as ingress:
        ingress.ready()

        assert await deliver_many(ingress) == {200}
        assert ingress.asked("/livez")[0] == 200
        assert await ingress.end() == 0
        assert ingress.complaints() == ""


async def test_there_is_no_standard_output(kafka: str, tmp_path: Path) -> None:
    """Its number would be that of the first connection: what is written there must not be lines."""
    with IngressProcess(tmp_path, kafka, command=["sh", "-c", 'exec "$@" >&-', "sh", *serve_command()]) as ingress:
        ingress.ready()

        assert await deliver_many(ingress) == {200}
        assert ingress.metric(DROPPED) >= DELIVERIES
        assert await ingress.end() == 0
        assert ingress.complaints() == ""
