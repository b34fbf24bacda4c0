"""A handler's call is a task of its own; whenever it is cancelled, nothing is left that Python complains of."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from bridge.event import Event
from bridge.kafka.transport import Place
from consumers.api import Consumer, Context, Lanes
from consumers.runtime.partition import Partition
from consumers.runtime.settling import GivenUpError, Settling, _bounded, _contained
from tests.unit.test_partition import NOTHING


async def test_a_call_that_is_given_up_before_it_began_leaves_nothing_behind() -> None:
    began = []

    async def handle() -> None:
        began.append(True)

    partition = Partition(Place("t", 0), NOTHING)
    call = asyncio.create_task(_bounded(partition, _contained(handle), timeout_s=60.0, group="g", offset=0))
    await asyncio.sleep(0)
    (task,) = partition.calls
    task.cancel()

    with pytest.raises(GivenUpError):
        await call
    gc.collect()
    assert not began


async def test_no_handler_is_started_for_a_partition_that_is_gone() -> None:
    began = []

    async def handle(event: Event, context: Context) -> None:
        del event, context
        began.append(True)

    none: Any = None
    consumer = Consumer("desk", ["t"], mode=Lanes(1), handle=handle)
    settling = Settling(consumer, none, none, none, none, none, none, none)
    partition = Partition(Place("t", 0), NOTHING)
    partition.close()

    with pytest.raises(GivenUpError):
        await settling.call(partition, (none,), None)
    assert not began
