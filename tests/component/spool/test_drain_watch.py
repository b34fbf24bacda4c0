"""When `drx-bridge spool drain` ends, and what it says then; time is virtual."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.commands.spool_drain import Outcome, Watch
from bridge.spool.store import Held
from tests.virtual_time import VirtualLoop

PATIENCE_S = 5.0


def watch(first: Held, then: Held, *, drained: int, after_s: float) -> tuple[Outcome, float]:
    """Have it watch a spool that holds `first` and, after a while, `then`; give the outcome and when it came."""
    loop = VirtualLoop()
    spool: Any = SimpleNamespace(held=first)
    writers: Any = SimpleNamespace(blocked=0, drained=0)
    parts: Any = SimpleNamespace(
        producer=SimpleNamespace(ready=True), known_ids=SimpleNamespace(finished=True), writers=writers
    )

    def move() -> None:
        spool.held, writers.drained = then, drained

    async def run() -> tuple[Outcome, float]:
        watched = Watch(parts, spool, patience_s=PATIENCE_S)
        began = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(after_s, move)
        await watched.run(asyncio.Event())
        return watched.outcome, asyncio.get_running_loop().time() - began

    try:
        return loop.run(run())
    finally:
        loop.close()


def test_it_ends_when_nothing_is_left() -> None:
    outcome, took_s = watch(Held(5, 0, 0, 0), Held(0, 0, 0, 0), drained=5, after_s=1)

    assert (outcome.drained, outcome.left, outcome.is_complete) == (5, 0, True)
    assert took_s == pytest.approx(1, abs=1)


@pytest.mark.parametrize("then", [Held(0, 0, 0, 0), Held(0, 0, 1, 0)], ids=["set aside", "damaged"])
def test_what_left_the_spool_for_elsewhere_is_not_drained(then: Held) -> None:
    outcome, _ = watch(Held(5, 0, 0, 0), then, drained=4, after_s=1)

    assert (outcome.drained, outcome.left) == (4, 0)


@pytest.mark.parametrize("kept", [Held(0, 1, 0, 0), Held(0, 0, 1, 0), Held(0, 0, 0, 1)])
def test_what_cannot_be_opened_or_read_is_left_and_fails_it(kept: Held) -> None:
    """Nothing of that comes back while this process runs, so nothing is waited for."""
    outcome, took_s = watch(kept._replace(events=5), kept, drained=5, after_s=1)

    assert (outcome.locked, outcome.damaged, outcome.unread) == kept[1:]
    assert (outcome.drained, outcome.left, outcome.is_complete) == (5, 0, False)
    assert took_s == pytest.approx(1, abs=1)
