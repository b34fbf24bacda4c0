"""What is left of a producer that has failed by itself."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import pytest

from bridge.kafka.producer import end_client


async def test_an_end_asks_for_what_has_failed_before_so_that_nobody_complains_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise RuntimeError

    client = SimpleNamespace(_sync_task=asyncio.create_task(fail()), _conns={})
    await asyncio.wait({client._sync_task})
    await end_client(client)
    del client
    gc.collect()

    assert caplog.records == []
