"""A failing disk: no false success, no loss of durable events, and recovery as soon as it works."""

import asyncio
from pathlib import Path

import pytest

from bridge.errors import NotDurableError
from tests.fault_disk import FOREVER, FaultDisk
from tests.spooling import PARTITION, an_entry, make_spool, open_spool, ordinals, segments
from tests.waiting import HANG_S


@pytest.fixture
def disk(tmp_path: Path) -> FaultDisk:
    return FaultDisk(tmp_path)


async def test_a_failed_fsync_is_not_retried_but_written_to_another_file(tmp_path: Path, disk: FaultDisk) -> None:
    """A second fsync of the same pages succeeds without a write, so only another file tells the truth."""
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1)
        disk.sync_failures = 1
        await kept.put(2)
        await kept.put(3)

        assert len(segments(tmp_path)) == 2
        assert kept.spool.code == ""
        assert await kept.head() == [1, 2, 3]

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 2, 3]
        assert again.value("corrupt_records_total") == 0


async def test_a_disk_that_fails_every_fsync_takes_nothing_and_loses_nothing(tmp_path: Path, disk: FaultDisk) -> None:
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1)
        disk.sync_failures = FOREVER
        with pytest.raises(NotDurableError, match="io_error"):
            await kept.put(2)
        assert kept.spool.code == "io_error"
        assert kept.value("available") == 0
        with pytest.raises(NotDurableError, match="io_error"):
            await kept.put(3)
        await kept.spool.maintain()
        assert kept.spool.code == "io_error"
        assert await kept.head() == [1]

        disk.sync_failures = 0
        await kept.spool.maintain()
        assert kept.spool.code == ""
        await kept.put(4)

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 4]


async def test_a_segment_that_was_begun_on_a_full_disk_and_holds_nothing_goes(tmp_path: Path, disk: FaultDisk) -> None:
    """A start would take it for one that has lost its end."""
    disk.room_bytes = 2_000_000
    async with open_spool(tmp_path, disk=disk, capacity_bytes=4_000_000) as kept:
        await kept.spool.append([an_entry(1, payload=bytes(300_000))])
        with pytest.raises(NotDurableError, match="full"):
            await kept.spool.append([an_entry(2, payload=bytes(2_500_000))])
        kept.spool.acknowledge(PARTITION, 1)
        await kept.spool.maintain()
        await kept.put(3)
        assert len(segments(tmp_path)) == 1

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [3]
        assert again.value("corrupt_records_total") == 0


async def test_a_file_that_keeps_part_of_a_failed_write_is_not_continued(tmp_path: Path, disk: FaultDisk) -> None:
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1)
        disk.room_bytes, disk.uncut = 2000, True
        with pytest.raises(NotDurableError, match="full"):
            await kept.spool.append([an_entry(2, payload=bytes(5000))])
        disk.room_bytes = None
        await kept.spool.maintain()
        await kept.put(3)
        assert await kept.head() == [1, 3]

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 3]


async def test_a_disk_that_became_read_only_is_still_drained(tmp_path: Path, disk: FaultDisk) -> None:
    """That is what a kernel does with a file system it has lost faith in; what it holds is wanted all the more."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    disk.read_only = True

    async with open_spool(tmp_path, disk=disk) as again:
        assert again.spool.code == "read_only"
        with pytest.raises(NotDurableError, match="read_only"):
            await again.put(4)
        assert await again.head() == [1, 2, 3]
        again.spool.acknowledge(PARTITION, 3)
        assert again.spool.depth(PARTITION) == 0

        disk.read_only = False
        await again.spool.maintain()
        assert again.spool.code == ""
        await again.put(5)


async def test_who_asks_while_the_disk_hangs_is_told_at_once(tmp_path: Path, disk: FaultDisk) -> None:
    async with asyncio.timeout(HANG_S), open_spool(tmp_path, disk=disk, stalled_s=0) as kept:
        disk.hanging.clear()
        disk.released.clear()
        first = asyncio.ensure_future(kept.spool.append([an_entry(1)]))
        await asyncio.to_thread(disk.hanging.wait)
        with pytest.raises(NotDurableError, match="stalled"):
            await kept.spool.append([an_entry(2)])
        assert (kept.spool.code, kept.value("available")) == ("stalled", 0)
        disk.released.set()
        await first

        assert (kept.spool.code, kept.value("available")) == ("", 1)
        assert await kept.head() == [1]


async def test_a_close_does_not_wait_for_ever_for_a_disk_that_hangs(tmp_path: Path, disk: FaultDisk) -> None:
    kept = make_spool(tmp_path, disk=disk, finish_s=0.05)
    await kept.spool.open(kept.found)
    disk.released.clear()
    async with asyncio.timeout(HANG_S):
        calls = [asyncio.ensure_future(kept.spool.append([an_entry(number)])) for number in range(3)]
        await asyncio.sleep(0)
        await kept.spool.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    disk.released.set()

    assert [str(outcome) for outcome in outcomes] == ["stalled"] * 3


async def test_the_directory_is_synced_before_anything_in_a_new_file_counts(tmp_path: Path, disk: FaultDisk) -> None:
    """Or the file itself could be gone after a power cut."""
    order: list[str] = []
    disk.observe = order.append
    async with open_spool(tmp_path, disk=disk) as kept:
        order.clear()
        await kept.put(1)

        assert order == ["create .segment", "sync directory", "write", "sync"]


async def test_positions_that_cannot_be_written_cost_nothing_now(tmp_path: Path, disk: FaultDisk) -> None:
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1, 2)
        disk.room_bytes = 0
        kept.spool.acknowledge(PARTITION, 1)

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 2]
