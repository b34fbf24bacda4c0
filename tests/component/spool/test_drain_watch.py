"""When `drx-bridge spool drain` ends, and what it says then; time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from bridge.app import Durability
from bridge.commands.spool_drain import Outcome, Watch
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.reader import ORDER_S
from tests.virtual_time import VirtualLoop

PATIENCE_S = 5.0


def watch(act: Callable[[IngressMetrics], None], *, after_s: float) -> tuple[Outcome, float]:
    """Have it watch five events, one segment that cannot be read, and an act; give the outcome and when it came."""
    loop = VirtualLoop()
    metrics = IngressMetrics(CollectorRegistry())
    metrics.spool_events.set(5)
    metrics.spool_unread_segments.set(1)
    parts: Any = SimpleNamespace(
        producer=SimpleNamespace(ready=True),
        known_ids=SimpleNamespace(finished=True),
        writers=SimpleNamespace(blocked=0),
    )

    async def run() -> tuple[Outcome, float]:
        watched = Watch(cast("Durability", parts), metrics, patience_s=PATIENCE_S, tell=lambda _done, _total: None)
        began = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(after_s, act, metrics)
        await watched.run(asyncio.Event())
        return watched.outcome, asyncio.get_running_loop().time() - began

    try:
        return loop.run(run())
    finally:
        loop.close()


def test_what_cannot_be_read_is_left_and_fails_it() -> None:
    outcome, took_s = watch(lambda metrics: metrics.spool_events.set(0), after_s=1)

    assert (outcome.drained, outcome.left, outcome.unread, outcome.is_complete) == (5, 0, 1, False)
    assert took_s == pytest.approx(ORDER_S + PATIENCE_S, abs=1)


def test_what_can_be_read_again_completes_it() -> None:
    def heal(metrics: IngressMetrics) -> None:
        metrics.spool_events.set(0)
        metrics.spool_unread_segments.set(0)

    outcome, took_s = watch(heal, after_s=ORDER_S)

    assert (outcome.drained, outcome.unread, outcome.is_complete) == (5, 0, True)
    assert took_s == pytest.approx(ORDER_S, abs=1)
