"""A disk with read errors: no data is treated as damaged, changed or lost, and order is kept."""

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from bridge.errors import NotDurableError
from bridge.runtime.lifecycle import unless
from tests.fault_disk import FaultDisk
from tests.kafka import until
from tests.spooling import (
    OTHER,
    PARTITION,
    Kept,
    an_entry,
    damaged,
    make_spool,
    open_spool,
    ordinals,
    segments,
    write_key,
)

# Nobody waits for as long as this, and not at all.
LONG_S, NOT_S = 1000.0, 0.0
# Of a segment with records of a kilobyte.
SECTOR = range(8192, 12288)


@pytest.fixture
def disk(tmp_path: Path) -> FaultDisk:
    return FaultDisk(tmp_path)


async def fill(directory: Path, *groups: list[int]) -> None:
    """Write each group into a segment of its own."""
    for group in groups:
        async with open_spool(directory) as kept:
            for number in group:
                await kept.spool.append([an_entry(number, payload=bytes(1000))])


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in segments(directory)}


def heal(disk: FaultDisk) -> None:
    disk.unreadable = lambda _path, _start, _end: False


async def assert_all_is_found(directory: Path, expected: list[int]) -> None:
    """Start again on a working disk: missing records are there, and none is damaged."""
    async with open_spool(directory) as again:
        assert await again.head() == ordinals(again.found) == expected
        assert again.value("unread_segments") == 0
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0
        again.spool.acknowledge(PARTITION, len(expected))
    assert segments(directory) == []


async def test_segments_that_cannot_be_read_stay_as_they_are_until_the_next_start(
    tmp_path: Path, disk: FaultDisk
) -> None:
    await fill(tmp_path, [1, 2], [3, 4])
    before = contents(tmp_path)
    disk.unreadable = lambda _path, _start, _end: True

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        await again.put(9, partition=OTHER)
        again.spool.acknowledge(OTHER, 1)
        await again.spool.maintain()
        assert (again.spool.code, again.found) == ("", [])
        assert again.value("unread_segments") == 2
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0
    assert (contents(tmp_path), damaged(tmp_path)) == (before, [])
    await assert_all_is_found(tmp_path, [1, 2, 3, 4])


async def failing_start(directory: Path, disk: FaultDisk) -> tuple[Kept, asyncio.Task[None]]:
    """Begin a start that does not get on for what the disk does not give back."""
    kept = make_spool(directory, disk=disk, order_s=LONG_S)
    opening = asyncio.create_task(kept.spool.open(kept.found))
    await until(lambda: kept.value("unread_segments") > 0)
    return kept, opening


async def test_a_start_keeps_order_behind_what_cannot_be_read(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, [1], [2, 3], [4])
    middle = segments(tmp_path)[1]
    disk.unreadable = lambda path, _start, _end: path == middle
    kept, opening = await failing_start(tmp_path, disk)

    assert await kept.head() == []
    with pytest.raises(NotDurableError, match="not_open"):
        await kept.put(5)
    heal(disk)
    await opening
    await kept.put(5)
    assert await kept.head() == [1, 2, 3, 4, 5]
    await kept.spool.close()


async def test_a_start_does_not_wait_forever(tmp_path: Path, disk: FaultDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one bad sector would keep everything that is intact from being delivered."""
    await fill(tmp_path, [1, 2], [3, 4], [5])
    first, second, _ = segments(tmp_path)
    loop = asyncio.get_running_loop()
    late_s, time = 0.0, loop.time
    reads: list[Path] = []

    def take_long(path: Path, _start: int, _end: int) -> bool:
        nonlocal late_s
        if path == first:
            late_s += LONG_S / 5
            reads.append(path)
        return path in {first, second}

    disk.unreadable = take_long
    monkeypatch.setattr(loop, "time", lambda: time() + late_s)

    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as again:
        assert late_s >= LONG_S
        assert len(reads) >= 6
        assert await again.head() == [5]
        assert again.value("unread_segments") == 2


async def test_sectors_that_cannot_be_read_keep_back_their_records_only(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, list(range(60)))
    before = contents(tmp_path)
    disk.unreadable = lambda _path, start, end: start < SECTOR.stop and SECTOR.start < end

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        found = ordinals(again.found)
        missing = sorted(set(range(60)) - set(found))
        assert found == sorted(found)
        assert 3 <= len(missing) <= 6
        assert await again.head() == found
        again.spool.acknowledge(PARTITION, len(found))
        await again.spool.maintain()
        assert again.value("unread_segments") == 1
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0
    assert (contents(tmp_path), damaged(tmp_path)) == (before, [])
    await assert_all_is_found(tmp_path, missing)


async def test_an_end_that_cannot_be_read_is_not_taken_for_an_unfinished_write(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, list(range(60)))
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    size = path.stat().st_size
    disk.unreadable = lambda _path, _start, end: end == size

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        assert (again.value("torn_tails_total"), path.stat().st_size) == (0, size)

    heal(disk)
    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        assert await again.head() == list(range(59))
        assert (again.value("torn_tails_total"), again.value("corrupt_records_total")) == (1, 0)


def refuse(operation: str) -> None:
    raise OSError(errno.EMFILE, operation)


@pytest.mark.parametrize("between", ["read", "refused"])
async def test_a_record_that_the_disk_does_not_give_back_now_is_waited_for(
    tmp_path: Path, disk: FaultDisk, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as kept:
        await kept.put(1)
        end = segments(tmp_path)[0].stat().st_size
        await kept.put(2, 3)
        await kept.put(4, partition=OTHER)
        disk.unreadable = lambda _path, start, _end: start < end
        for _ in range(2):
            assert (await kept.head(), await kept.head(OTHER)) == ([], [4])

        failing, observe = disk.unreadable, disk.observe
        heal(disk)
        disk.observe = observe if between == "read" else refuse
        assert await kept.head() == ([1, 2, 3] if between == "read" else [])
        disk.observe = observe
        disk.unreadable, now = failing, asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now + LONG_S)
        assert (await kept.head(), await kept.head(OTHER)) == ([], [4])
        assert kept.value("corrupt_records_total") == 0


async def test_a_record_that_the_disk_keeps_is_left_to_the_next_start(tmp_path: Path, disk: FaultDisk) -> None:
    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as kept:
        for number in range(5):
            await kept.spool.append([an_entry(number, payload=bytes(1000))])
        second = segments(tmp_path)[0].stat().st_size // 5
        disk.unreadable = lambda _path, start, _end: second <= start < 3 * second
        assert await kept.head() == [0]
        kept.spool.acknowledge(PARTITION, 1)
        assert await kept.head() == [3, 4]
        kept.spool.acknowledge(PARTITION, 2)
        await kept.spool.maintain()
        assert (kept.value("unread_segments"), kept.value("corrupt_records_total")) == (1, 0)
        assert kept.spool.code == ""
        key = (tmp_path / "keys" / "current").read_bytes()
        write_key(tmp_path / "keys")
        await kept.spool.maintain()
        assert kept.spool.code == "no_key"
    (tmp_path / "keys" / "current").write_bytes(key)
    await assert_all_is_found(tmp_path, [1, 2])


async def test_after_a_record_that_was_left_the_next_one_is_waited_for(
    tmp_path: Path, disk: FaultDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as kept:
        await kept.put(1)
        disk.unreadable = lambda _path, _start, _end: True
        assert await kept.head() == []
        now = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now + LONG_S)
        assert (await kept.head(), kept.value("unread_segments")) == ([], 1)

        await kept.put(2)
        assert await kept.head() == []
        heal(disk)
        assert await kept.head() == [2]


async def test_a_record_that_may_not_be_read_now_is_waited_for_without_end(tmp_path: Path, disk: FaultDisk) -> None:
    """What somebody can put right here, such as an owner or a limit of open files, passes without a restart."""
    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as kept:
        await kept.put(1, 2)
        disk.observe, before = refuse, disk.observe
        for _ in range(2):
            assert (await kept.head(), kept.value("unread_segments")) == ([], 0)

        disk.observe = before
        assert await kept.head() == [1, 2]


async def test_what_was_read_wrongly_once_is_no_damage(tmp_path: Path) -> None:
    disk = Garbling(tmp_path)
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1, 2)
        disk.garbled = 1

        assert await kept.head() == [1, 2]
        assert kept.value("corrupt_records_total") == 0


async def test_a_directory_that_cannot_be_listed_is_no_stopped_start(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, [1, 2])
    disk.unlisted = True

    async with open_spool(tmp_path, disk=disk) as again:
        await again.spool.maintain()
        assert again.spool.code == "io_error"

        disk.unlisted = False
        await again.spool.maintain()
        assert again.spool.code == ""
        assert await again.head() == [1, 2]


class Garbling(FaultDisk):
    """Gives back something else for the next reads."""

    garbled = 0

    def read(self, path: Path, offset: int, length: int) -> bytes:
        content = super().read(path, offset, length)
        if not self.garbled or path.suffix != ".segment":
            return content
        self.garbled -= 1
        return content[:-1] + bytes([content[-1] ^ 1])


async def test_a_start_that_is_cut_off_removes_nothing(tmp_path: Path, disk: FaultDisk) -> None:
    """What it has not entered yet is not nothing."""
    await fill(tmp_path, list(range(50)))
    before = contents(tmp_path)
    kept = make_spool(tmp_path, disk=disk)
    loop, is_reading, is_cut_off = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hang(operation: str) -> None:
        if operation == "read .segment":
            loop.call_soon_threadsafe(is_reading.set)
            is_cut_off.wait()

    disk.observe = hang
    await unless(is_reading, kept.spool.open(kept.found))
    is_cut_off.set()
    await kept.spool.close()

    assert kept.found == []
    assert contents(tmp_path) == before
    async with open_spool(tmp_path) as again:
        assert await again.head() == list(range(50))
