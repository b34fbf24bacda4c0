"""A stop drains, commits and leaves, within bounds."""

from __future__ import annotations

import asyncio

import pytest

from consumers.runtime import subscriber
from tests.component.subscriber.group import A, B, Group, until
from tests.fake_transport import FakeTransport


async def test_a_stop_drains_commits_and_leaves(group: Group) -> None:
    group.processor.holding = True
    group.kafka.add(A, "a")
    async with group.running() as running:
        await until(lambda: group.processor.ids(A) == ["a"])

    assert running.ready() == "stopping"
    assert group.processor.drained[-1] == {A, B}
    assert group.kafka.offsets[A] == 1
    assert group.transport.stopped
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_is_bounded_when_a_drain_hangs(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "DRAIN_MARGIN_S", 0.01)
    group.drain_s = 0.05
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.draining.clear()

    assert group.transport.stopped


async def test_a_stop_lets_a_rebalance_end_its_drain(group: Group) -> None:
    """The client would cancel it after a second, and not leave the group, which waits until a session has run out."""
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.draining.clear()
        rebalance = asyncio.create_task(group.transport.rebalance([]))
        await until(lambda: group.processor.drained[-1] == {A, B})
        group.stop.set()
        assert group.task is not None
        await asyncio.wait({group.task}, timeout=0.5)
        stopped = group.transport.stopped
        group.processor.draining.set()
        await rebalance

    assert (stopped, group.transport.stopped) == (False, True)


async def test_a_rebalance_amid_a_stop_waits_for_its_drain(group: Group) -> None:
    """Until then the partitions are ours: another member would handle what is still in flight."""
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.draining.clear()
        group.stop.set()
        await until(lambda: group.processor.drained[-1] == {A, B})
        rebalance = asyncio.create_task(group.transport.rebalance([]))
        await asyncio.wait({rebalance}, timeout=0.1)
        given_away = rebalance.done()
        group.processor.draining.set()
        await rebalance

    assert not given_away


async def test_a_stop_while_joining_ends_at_once(group: Group) -> None:
    class Slow(FakeTransport):
        async def start(self, rebalances: object) -> None:
            del rebalances
            await asyncio.Event().wait()

    group.open = lambda: group.transports.append(Slow(group.kafka)) or group.transport  # type: ignore[func-returns-value,method-assign]
    async with group.running():
        await until(lambda: len(group.transports) == 1)

    assert group.transport.stopped
