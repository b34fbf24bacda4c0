"""The first connection to a Temporal server, with a minimal server."""

import asyncio
import contextlib
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from bridge.dev.ports import HOST
from bridge.errors import TransientError
from consumers.workflow.options import WorkflowOptions
from consumers.workflow.temporal import WorkflowMetrics, open_temporal

# HTTP/2 (RFC 9113): what a client says first, the head of a frame, and the types HEADERS and SETTINGS.
_PREFACE_BYTES, _HEAD_BYTES, _HEADERS, _SETTINGS = 24, 9, 1, 4
_ACK, _END = 0x1, 0x5
# `:status` (HPACK, RFC 7541, static table) as a literal of three digits.
_STATUS = b"\x08\x03"


def _frame(kind: int, flags: int, stream: bytes, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream + payload


async def _answer(status: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_frame(_SETTINGS, 0, bytes(4)) + _frame(_SETTINGS, _ACK, bytes(4)))
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        await reader.readexactly(_PREFACE_BYTES)
        while True:
            head = await reader.readexactly(_HEAD_BYTES)
            await reader.readexactly(int.from_bytes(head[:3]))
            if head[3] == _HEADERS:
                writer.write(_frame(_HEADERS, _END, head[5:], _STATUS + status))
    writer.close()


@pytest.mark.parametrize(
    ("status", "code"), [(b"401", "unauthorized"), (b"403", "unauthorized"), (b"503", "unreachable")]
)
async def test_a_server_that_refuses_us_from_the_start_is_told_from_one_that_is_away(status: bytes, code: str) -> None:
    """Only the first is healed by a person, who is paged for it."""
    server = await asyncio.start_server(partial(_answer, status), HOST, 0)
    options = WorkflowOptions(address=f"{HOST}:{server.sockets[0].getsockname()[1]}", allow_plaintext=True)
    metrics = WorkflowMetrics(CollectorRegistry(), service="workflow", timers=False)
    async with server, open_temporal(options, metrics, identity="test") as temporal:
        with pytest.raises(TransientError) as caught:
            await temporal.ping()

    assert (caught.value.code, caught.value.systemic) == (code, True)
