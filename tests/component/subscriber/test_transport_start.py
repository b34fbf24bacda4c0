"""A member that cannot join is replaced by the next, whatever aiokafka raises."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.kafka.connection import Connection
from consumers.runtime.membership import TransportError
from consumers.runtime.transport import open_transport
from tests.garbage import garbage


async def test_bytes_that_are_no_answer_are_no_session() -> None:
    nobody: Any = None  # hears of a rebalance before there is a session
    async with garbage() as port:
        transport = open_transport(Connection(port.address), group="g", topics=["drx.prescriptions.v1"])
        with pytest.raises(TransportError, match="handshake_failed"):
            await transport.start(nobody)
