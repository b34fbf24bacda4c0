"""An output that takes no lines costs lines only: deliveries are answered, probes too, and a stop is one."""

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.builders import a_body
from tests.integration.ingress_process import IngressProcess, deliver, serve_command
from tests.integration.service_process import HANG_S, until

pytestmark = pytest.mark.kafka

# Their lines are 16 times what the smallest pipe holds.
DELIVERIES = 240
PIPE_BYTES = 4096
DROPPED = "drxbridge_log_dropped_total"


@contextmanager
def pipe(*, blocking: bool = True) -> Iterator[tuple[FileIO, FileIO]]:
    """Give a small pipe, reader and writer; either may be closed before its end."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(ends[1], blocking)
    # Files, not numbers: the number of a closed end belongs to another one soon.
    with FileIO(ends[0], "r") as reader, FileIO(ends[1], "w") as writer:
        yield reader, writer


def ingress_to(stdout: int) -> type[IngressProcess]:
    return type("IngressTo", (IngressProcess,), {"stdout": stdout})


async def deliver_many(ingress: IngressProcess) -> set[int]:
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        return {
            (await deliver(session, ingress, a_body(data_prescription_id=f"rx_{n % 7}"), webhook_id=uuid4().hex)).status
            for n in range(DELIVERIES)
        }


async def read_lines(reader: FileIO, *, last: str) -> list[dict[str, Any]]:
    stream = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    with os.fdopen(os.dup(reader.fileno()), "rb", buffering=0) as file:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(HANG_S):
            while not found or found[-1]["event"] != last:
                found.append(json.loads(await stream.readline()))
        transport.close()
    return found


async def test_the_reader_of_the_log_is_gone(kafka: str, tmp_path: Path) -> None:
    with pipe() as (reader, writer), ingress_to(writer.fileno())(tmp_path, kafka) as ingress:
        writer.close()
        ingress.ready()
        reader.close()

        assert await deliver_many(ingress) == {200}
        until(lambda: ingress.metric(DROPPED) >= DELIVERIES, what="the lines that are counted")
        assert ingress.asked("/readyz")[0] == 200
        assert await ingress.end() == 0
        assert ingress.complaints() == ""


async def test_nobody_reads_the_log(kafka: str, tmp_path: Path) -> None:
    with pipe() as (_, writer), ingress_to(writer.fileno())(tmp_path, kafka) as ingress:
        ingress.ready()

        assert await deliver_many(ingress) == {200}
        assert ingress.asked("/livez")[0] == 200
        assert await ingress.end() == 0
        assert ingress.complaints() == ""


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_reader_that_comes_back_finds_every_line_whole(kafka: str, tmp_path: Path, *, blocking: bool) -> None:
    """Also through a pipe that another program has set not to block."""
    with (
        pipe(blocking=blocking) as (reader, writer),
        ingress_to(writer.fileno())(tmp_path, kafka, LOG__LEVEL="info") as ingress,
    ):
        ingress.ready()
        assert await deliver_many(ingress) == {200}
        async with aiohttp.ClientSession() as session:
            assert (
                await deliver(session, ingress, a_body(), webhook_id="evt_last", content_type="text/plain")
            ).status == 415

        lines = await read_lines(reader, last="delivery.refused")

        assert [line["event"] for line in lines].count("delivery.accepted") == DELIVERIES
        assert ingress.metric(DROPPED) == 0


async def test_there_is_no_standard_output(kafka: str, tmp_path: Path) -> None:
    """Its number would be that of the first connection: what is written there must not be lines."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *serve_command()]
    with IngressProcess(tmp_path, kafka, command=command) as ingress:
        ingress.ready()

        assert await deliver_many(ingress) == {200}
        assert ingress.metric(DROPPED) >= DELIVERIES
        assert await ingress.end() == 0
        assert ingress.complaints() == ""
