"""What the spool promises, on real files: durable when it says so, in order, gone only when acknowledged."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from bridge.errors import NotDurableError
from bridge.spool.disk import Disk, is_locked
from bridge.spool.segment import Entry
from tests.spooling import (
    MARKER,
    OTHER,
    PARTITION,
    Found,
    an_entry,
    entries,
    files,
    make_spool,
    open_spool,
    ordinals,
    segments,
)

STARTS = 3000


async def test_what_is_appended_is_found_after_a_restart_in_order(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        await kept.put(3, partition=OTHER)
        await kept.put(4)

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 2, 3, 4]
        assert again.found[2] == an_entry(3, partition=OTHER)
        assert (again.spool.depth(PARTITION), again.spool.depth(OTHER)) == (3, 1)
        assert again.spool.last_ordinal == 4
        assert await again.head() == [1, 2, 4]


async def test_the_order_of_the_calls_is_the_order_in_the_file(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        calls = [kept.spool.append([an_entry(number)]) for number in range(500)]
        await asyncio.gather(*calls)
        assert await kept.head() == list(range(500))

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == list(range(500))


async def test_a_file_goes_when_nothing_is_left_in_it(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        kept.spool.acknowledge(PARTITION, 2)
        assert kept.partitions == []
        await kept.tend()
        await kept.put(3)
        assert len(segments(tmp_path)) == 1

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [3]
        again.spool.acknowledge(PARTITION, 1)

    assert segments(tmp_path) == []
    assert files(tmp_path, "*.positions") == []


async def test_what_is_dropped_while_it_is_recovered_takes_nothing_with_it(tmp_path: Path) -> None:
    """A segment is entered in batches; were its file removed after the first, the others would be gone."""
    async with open_spool(tmp_path) as kept:
        await kept.put(*range(1000))
    again = make_spool(tmp_path)

    class Acknowledging(Found):
        def recovered(self, entry: Entry) -> None:
            again.found.append(entry)
            again.spool.acknowledge(PARTITION, again.spool.depth(PARTITION))

    await again.spool.open(Acknowledging())
    again.spool.acknowledge(PARTITION, again.spool.depth(PARTITION))
    await again.spool.close()

    assert ordinals(again.found) == list(range(1000))
    assert again.value("corrupt_records_total") == 0
    assert segments(tmp_path) == []


async def test_a_file_stays_while_a_group_is_on_its_way_into_it(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.spool.append([an_entry(1, payload=bytes(2_000_000))])
        call = kept.spool.append([an_entry(2)])
        await asyncio.sleep(0)
        kept.spool.acknowledge(PARTITION, 1)
        await call

        assert await kept.head() == [2]

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [2]


async def test_a_large_spool_is_many_files_and_each_goes_when_it_is_done(tmp_path: Path) -> None:
    payload = MARKER * 1000
    async with open_spool(tmp_path, capacity_bytes=16 * 200_000) as kept:
        for number in range(60):
            await kept.spool.append([an_entry(number, payload=payload)])
        before = segments(tmp_path)
        taken = kept.value("bytes")
        kept.spool.acknowledge(PARTITION, 30)
        await kept.put(60)

        assert len(before) > 4
        assert len(segments(tmp_path)) < len(before)
        assert kept.value("bytes") < taken
        assert await kept.head() == [*range(30, 61)]


async def test_a_second_process_is_kept_out_until_the_first_has_left(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept, open_spool(tmp_path) as second:
        await kept.put(1)
        assert second.spool.code == "locked"
        with pytest.raises(NotDurableError, match="locked"):
            await second.put(2)

        await kept.spool.close()
        await second.tend()

        assert second.spool.code == ""
        assert ordinals(second.found) == [1]


async def test_the_capacity_is_kept_and_comes_back(tmp_path: Path) -> None:
    payload = bytes(100_000)
    async with open_spool(tmp_path, capacity_bytes=1_048_576) as kept:
        for number in range(10):
            await kept.spool.append([an_entry(number, payload=payload)])
        with pytest.raises(NotDurableError, match="full"):
            await kept.spool.append([an_entry(10, payload=payload)])
        await kept.tend()
        assert kept.spool.code == "full"
        assert kept.value("available") == 0

        kept.spool.acknowledge(PARTITION, 5)
        await kept.tend()

        assert kept.spool.code == ""
        await kept.spool.append([an_entry(10, payload=payload)])
        assert await kept.head() == [*range(5, 11)]


async def test_who_gave_up_before_it_was_begun_is_left_out(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        first, second, third = (asyncio.ensure_future(kept.spool.append([an_entry(n)])) for n in (1, 2, 3))
        second.cancel()
        await asyncio.gather(first, third)

        assert await kept.head() == [1, 3]


async def test_what_is_held_is_told(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        assert (kept.value("events"), kept.value("oldest_event_timestamp_seconds")) == (0, 0)
        await kept.spool.append(entries([7, 8]))

        assert kept.value("events") == 2
        assert kept.value("oldest_event_timestamp_seconds") == 1_700_000_000.007
        assert kept.value("bytes") == sum(path.stat().st_size for path in segments(tmp_path))
        assert kept.value("available") == 1
        assert kept.value("fsync_duration_seconds_count") == 1


async def test_who_only_looks_keeps_nobody_out(tmp_path: Path) -> None:
    """A bridge that starts while somebody asks for the status would do without its spool at first."""
    async with open_spool(tmp_path):
        assert is_locked(tmp_path)
    disk, stop = Disk(), threading.Event()

    def look() -> int:
        looks = 0
        while not stop.is_set():
            is_locked(tmp_path)
            looks += 1
        return looks

    looking = asyncio.create_task(asyncio.to_thread(look))
    try:
        for _ in range(STARTS):
            disk.close(await asyncio.to_thread(disk.lock, tmp_path))
    finally:
        stop.set()
        looks = await looking

    assert looks > 0
    assert not is_locked(tmp_path)
