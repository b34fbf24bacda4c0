"""Which partitions are polled: those with room, and none where nothing can be settled."""

from __future__ import annotations

import pytest

from consumers.runtime import subscriber
from tests.component.subscriber.group import HANG_S, A, B, Group, turns, until


async def test_a_partition_without_room_is_left_out_and_none_with_room_means_none(group: Group) -> None:
    """For aiokafka no partition means every partition."""
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.full = {A}
        await turns(group)
        group.kafka.add(A, "a")
        group.kafka.add(B, "b")
        await until(lambda: group.processor.ids(B) == ["b"])
        group.processor.full = {A, B}
        await turns(group)
        group.kafka.add(B, "c")
        await turns(group)
        assert group.transport.polled[-1] == frozenset()
        assert (group.processor.ids(A), group.processor.ids(B)) == ([], ["b"])
        assert group.transport.paused == set()
        group.processor.full = set()

        await until(lambda: (group.processor.ids(A), group.processor.ids(B)) == (["a"], ["b", "c"]))


async def test_room_is_noticed_long_before_a_poll_without_records_ends(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with group.running():
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.full = {A}
        group.kafka.add(A, "a")
        await turns(group)
        monkeypatch.setattr(subscriber, "POLL_S", 2 * HANG_S)
        await turns(group)
        group.processor.full = set()

        await until(lambda: group.processor.ids(A) == ["a"])
        monkeypatch.setattr(subscriber, "POLL_S", 0.02)
        group.kafka.add(B, "b")  # which ends the poll that is out


async def test_a_halted_partition_is_paused_polling_goes_on_and_later_it_is_resumed(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.processor.next_offsets) == {A, B})
        group.processor.stopped_for_long = {A, B}
        await until(lambda: group.transport.paused == {A, B})
        await turns(group)
        assert (running.ready(), running.degraded()) == ("ok", "degraded")
        assert group.sample("consumer_paused_partitions") == 2
        group.kafka.add(A, "a")
        group.processor.stopped_for_long = set()

        await until(lambda: group.processor.ids(A) == ["a"])
        assert group.transport.paused == set()
