"""A failing disk: no false success, no loss of durable events, and recovery as soon as it works."""

import asyncio
import errno
from pathlib import Path

import pytest

from bridge.errors import NotDurableError
from bridge.spool.availability import GROUP_MAX_BYTES
from bridge.spool.segment import HEADER_BYTES, scan
from bridge.spool.store import RETRY_MAX_S
from tests.fault_disk import FOREVER, FaultDisk
from tests.logs import capture_logs
from tests.spooling import PARTITION, an_entry, make_spool, open_spool, ordinals, segments
from tests.waiting import HANG_S


@pytest.fixture
def disk(tmp_path: Path) -> FaultDisk:
    return FaultDisk(tmp_path)


@pytest.mark.parametrize("failing", [["sync"], ["write"], ["sync", "extend .segment"]])
async def test_after_a_failed_write_or_fsync_the_group_is_written_to_another_file(
    tmp_path: Path, disk: FaultDisk, failing: list[str]
) -> None:
    """A second fsync of the same pages succeeds without a write, so only another file tells the truth."""

    def fail(operation: str) -> None:
        if operation in failing:
            failing.remove(operation)
            raise OSError(errno.EIO, operation)

    async with open_spool(tmp_path, disk=disk, now_ns=lambda: 7) as kept:  # the clock stands still
        await kept.put(1)
        disk.observe = fail
        await kept.put(2)
        await kept.put(3)

        assert (failing, kept.spool.code) == ([], "")
        assert await kept.head() == [1, 2, 3]
        await kept.spool.maintain()
        assert scan(segments(tmp_path)[0].read_bytes(), segment=7, newest=False, keys={}).is_ended
    contents = [path.read_bytes() for path in segments(tmp_path)]
    assert [scan(each, segment=7 + n, newest=False, keys={}).is_ended for n, each in enumerate(contents)] == [True] * 2

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 2, 3]
        assert again.value("corrupt_records_total") == 0


async def test_a_disk_that_fails_every_fsync_takes_nothing_and_loses_nothing(tmp_path: Path, disk: FaultDisk) -> None:
    payload = bytes(GROUP_MAX_BYTES)
    async with asyncio.timeout(HANG_S), open_spool(tmp_path, disk=disk, capacity_bytes=3 * len(payload)) as kept:
        await kept.put(1)
        disk.sync_failures = FOREVER
        # The second call waits for the group of the first one.
        calls = [kept.spool.append([an_entry(2, payload=payload)]) for _ in range(2)]
        assert list(map(str, await asyncio.gather(*calls, return_exceptions=True))) == ["io_error"] * 2
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
        await kept.spool.append([an_entry(4, payload=2 * payload)])

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
        for room_bytes, code in ((GROUP_MAX_BYTES, "full"), (None, "")):
            disk.room_bytes = room_bytes
            await kept.spool.maintain()
            assert kept.spool.code == code
        await kept.put(3)
        assert await kept.head() == [1, 3]

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 3]


async def test_a_disk_that_became_read_only_is_still_drained(
    tmp_path: Path, disk: FaultDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is what a kernel does with a file system it has lost faith in; what it holds is wanted all the more."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-HEADER_BYTES])  # without an end mark, as its process was killed
    disk.read_only = True
    loop, late_s = asyncio.get_running_loop(), 0.0
    began = loop.time()
    monkeypatch.setattr(loop, "time", lambda: began + late_s)

    with capture_logs() as lines:
        async with open_spool(tmp_path, disk=disk) as again:
            assert again.spool.code == "read_only"
            with pytest.raises(NotDurableError, match="read_only"):
                await again.put(4)
            assert await again.head() == [1, 2, 3]
            again.spool.acknowledge(PARTITION, 3)
            assert again.spool.depth(PARTITION) == 0
            for _ in range(3):
                await again.spool.maintain()
            assert (again.spool.failing, again.value("failing_segments")) == (2, 2)  # to write once more, and to remove
            assert [(line["segment"], line["code"]) for line in lines if line["event"] == "worker.spool_failing"] == [
                (path.stem, "read_only")
            ]

            disk.read_only = False
            await again.spool.maintain()
            assert again.spool.code == ""
            await again.put(5)
            assert path.exists()  # it waits longer after each failure
            late_s = RETRY_MAX_S
            await again.spool.maintain()
            assert (again.value("failing_segments"), await again.head(), path.exists()) == (0, [5], False)


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
    begun = ["create .segment", "sync directory"]

    def fail_once(operation: str) -> None:
        order.append(operation)
        if order == begun:
            raise OSError(errno.EIO, operation)

    async with open_spool(tmp_path, disk=disk) as kept:
        disk.observe = fail_once
        await kept.put(1)

        assert order == [*begun, "unlink .segment", *begun, "write", "sync"]
        kept.spool.acknowledge(PARTITION, 1)
    assert order[-6:] == ["extend .segment", "write", "sync", "unlink .segment", "sync directory", "unlink .positions"]


async def test_what_a_killed_process_wrote_is_durable_once_written_again(tmp_path: Path, disk: FaultDisk) -> None:
    """If its fsync failed, the pages count as clean, so that the next fsync succeeds without a write."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        content = segments(tmp_path)[0].read_bytes()
    (path,) = segments(tmp_path)
    path.write_bytes(content + content[:5])
    disk.sync_failures = 1
    calls: list[str] = []

    async with open_spool(tmp_path, disk=disk) as again:
        assert (ordinals(again.found), again.spool.is_durable) == ([1, 2], False)
        disk.observe = calls.append
        await again.spool.maintain()
        first = calls.index("write over .segment")
        assert calls[first + 1 : first + 7] == ["write", "write", "sync", "extend .segment", "write", "sync"]
        assert again.spool.is_durable
    assert scan(path.read_bytes(), segment=int(path.stem, 16), newest=False, keys={}).damage == []
    assert path.read_bytes().startswith(content)


@pytest.mark.parametrize(("room_bytes", "found"), [(0, [1, 2]), (50, [2])])
async def test_positions_and_an_end_mark_that_cannot_be_written_cost_nothing_now(
    tmp_path: Path, disk: FaultDisk, room_bytes: int, found: list[int]
) -> None:
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1, 2)
        disk.room_bytes = segments(tmp_path)[0].stat().st_size + room_bytes
        kept.spool.acknowledge(PARTITION, 1)

    async with open_spool(tmp_path) as again:
        assert (ordinals(again.found), again.value("torn_tails_total")) == (found, 0)
