"""A disk that does not give back what it holds: nothing is taken for damage, touched or lost, and order holds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest

from bridge.errors import NotDurableError
from bridge.runtime.lifecycle import background, unless
from bridge.spool import store
from bridge.spool.recovery import BATCH, PROMPT_ATTEMPTS
from tests.fault_disk import FaultDisk
from tests.kafka import HANG_S, until
from tests.spooling import LANE, OTHER, an_entry, damaged, make_spool, open_spool, ordinals, segments

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


async def test_what_passes_within_a_start_costs_nothing(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, [1, 2], [3, 4])
    disk.read_failures = 3

    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as again:
        assert await again.head() == [1, 2, 3, 4]
        assert sorted(ordinals(again.found)) == [1, 2, 3, 4]
        assert again.value("unread_segments") == 0
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0


async def test_segments_that_cannot_be_read_are_left_as_they_are_until_they_can(
    tmp_path: Path, disk: FaultDisk
) -> None:
    await fill(tmp_path, [1, 2], [3, 4])
    before = contents(tmp_path)
    disk.unreadable = lambda _path, _start, _end: True

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        await again.put(9, lane=OTHER)
        await again.tend()
        assert (again.spool.code, again.found) == ("", [])
        assert again.value("unread_segments") == 2
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0
        assert contents(tmp_path).items() >= before.items()
        assert damaged(tmp_path) == []

        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()
        assert await again.head() == ordinals(again.found) == [1, 2, 3, 4]
        assert again.value("unread_segments") == 0
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0
        again.spool.drop(LANE, 4)
        again.spool.drop(OTHER, 1)
    assert segments(tmp_path) == []


async def test_a_disk_that_goes_on_failing_is_asked_less_often(tmp_path: Path, disk: FaultDisk) -> None:
    """Each look at it keeps it busy, and may take long."""
    await fill(tmp_path, [1])
    looks = 0

    def unreadable(_path: Path, _start: int, _end: int) -> bool:
        nonlocal looks
        looks += 1
        return True

    disk.unreadable = unreadable
    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        counts = []
        for _ in range(2 * PROMPT_ATTEMPTS):
            await again.tend()
            counts.append(looks)

        assert counts[PROMPT_ATTEMPTS - 1] < counts[PROMPT_ATTEMPTS] == counts[-1]


async def test_nothing_overtakes_what_a_segment_may_hold_that_cannot_be_read(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, [1], [2, 3], [4])
    middle = segments(tmp_path)[1]
    disk.unreadable = lambda path, _start, _end: path == middle

    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as again:
        await again.put(5)
        assert await again.head() == [1]

        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()
        assert await again.head() == [1, 2, 3, 4, 5]


async def test_nothing_overtakes_either_when_the_start_itself_took_long(
    tmp_path: Path, disk: FaultDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, [1], [2])
    first, second = segments(tmp_path)
    loop = asyncio.get_running_loop()
    late_s, time = 0.0, loop.time
    read: set[Path] = set()

    def take_long(path: Path, _start: int, _end: int) -> bool:
        nonlocal late_s
        late_s += 2 * LONG_S
        read.add(path)
        return path == first

    disk.unreadable = take_long
    monkeypatch.setattr(loop, "time", lambda: time() + late_s)

    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as again:
        assert read == {first, second}
        assert await again.head() == []


async def test_entries_are_taken_again_while_the_disk_takes_long_to_read(
    tmp_path: Path, disk: FaultDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has filled the spool is delivered meanwhile."""
    monkeypatch.setattr(store, "RETRY_S", 0.01)
    await fill(tmp_path, [1])
    disk.unreadable = lambda _path, _start, _end: True

    async with asyncio.timeout(HANG_S), open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        disk.unreadable = lambda _path, _start, _end: False
        with disk.hanging_reads() as hanging:
            async with background(again.spool, drain_timeout_s=HANG_S):
                await hanging.wait()
                taken = 0
                while not again.spool.code:
                    with contextlib.suppress(NotDurableError):
                        await again.spool.append([an_entry(taken, lane=OTHER, payload=bytes(100_000))])
                        taken += 1
                assert again.spool.code == "full"
                again.spool.drop(OTHER, taken)
                await until(lambda: not again.spool.code)


async def test_in_the_end_what_can_be_read_gets_on_and_the_rest_comes_late(tmp_path: Path, disk: FaultDisk) -> None:
    """Or one bad sector would keep everything that is intact from being delivered."""
    await fill(tmp_path, [1, 2], [3, 4])
    first = segments(tmp_path)[0]
    disk.unreadable = lambda path, _start, _end: path == first

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        assert await again.head() == [3, 4]

        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()
        again.spool.drop(LANE, 2)
        assert await again.head() == [1, 2]


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
        again.spool.drop(LANE, len(found))
        await again.tend()
        assert again.value("unread_segments") == 1
        assert again.value("corrupt_records_total") + again.value("torn_tails_total") == 0
        assert (contents(tmp_path), damaged(tmp_path)) == (before, [])

        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()
        assert await again.head() == missing
        again.spool.drop(LANE, len(missing))
        assert again.value("unread_segments") == again.value("corrupt_records_total") == 0
    assert segments(tmp_path) == []


async def test_an_end_that_cannot_be_read_is_not_taken_for_an_unfinished_write(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, list(range(60)))
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    size = path.stat().st_size
    disk.unreadable = lambda _path, _start, end: end == size

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        assert (again.value("torn_tails_total"), path.stat().st_size) == (0, size)

        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()
        assert await again.head() == list(range(59))
        assert (again.value("torn_tails_total"), again.value("corrupt_records_total")) == (1, 0)


async def test_a_record_that_the_disk_does_not_give_back_now_is_waited_for(tmp_path: Path, disk: FaultDisk) -> None:
    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as kept:
        await kept.put(1, 2, 3)
        disk.read_failures = 1
        assert await kept.head() == []
        assert await kept.head() == [1, 2, 3]
        assert kept.value("corrupt_records_total") == 0


async def test_a_record_that_the_disk_keeps_for_itself_is_left_for_later(tmp_path: Path, disk: FaultDisk) -> None:
    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as kept:
        for number in range(5):
            await kept.spool.append([an_entry(number, payload=bytes(1000))])
        second = (path := segments(tmp_path)[0]).stat().st_size // 5
        disk.unreadable = lambda _path, start, _end: second <= start < 3 * second
        assert await kept.head() == [0]
        kept.spool.drop(LANE, 1)
        assert await kept.head() == [3, 4]
        kept.spool.drop(LANE, 2)
        await kept.tend()
        assert (kept.value("unread_segments"), kept.value("corrupt_records_total")) == (1, 0)
        assert path.exists()

        disk.unreadable = lambda _path, _start, _end: False
        await kept.tend()
        assert await kept.head() == [1, 2]
        assert ordinals(kept.found) == [1, 2]
        assert kept.value("unread_segments") == 0
        kept.spool.drop(LANE, 2)
    assert segments(tmp_path) == []


async def test_what_was_read_wrongly_once_is_no_damage(tmp_path: Path) -> None:
    disk = Garbling(tmp_path)
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1, 2)
        disk.garbled = 1

        assert await kept.head() == [1, 2]
        assert kept.value("corrupt_records_total") == 0


async def test_damage_is_not_copied_as_long_as_it_cannot_be_read(tmp_path: Path, disk: FaultDisk) -> None:
    """A copy with zeros in it would be all that is left, once its segment is gone."""
    await fill(tmp_path, [1, 2, 3])
    (path,) = segments(tmp_path)
    spoilt = path.read_bytes()[:600] + b"?" + path.read_bytes()[601:]
    path.write_bytes(spoilt)
    disk.unreadable = lambda _path, start, end: start == 0 and end < len(spoilt)

    async with open_spool(tmp_path, disk=disk) as again:
        assert await again.head() == [2, 3]
        again.spool.drop(LANE, 2)
        await again.tend()
        assert (damaged(tmp_path), path.read_bytes()) == ([], spoilt)

        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()
        (copy,) = damaged(tmp_path)
        assert copy.read_bytes() == spoilt[: len(copy.read_bytes())]
        assert again.value("corrupt_records_total") == 1
    assert segments(tmp_path) == []


async def test_a_directory_that_cannot_be_listed_is_no_stopped_start(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, [1, 2])
    disk.unlisted = True

    async with open_spool(tmp_path, disk=disk) as again:
        await again.tend()
        assert again.spool.code == "io_error"

        disk.unlisted = False
        await again.tend()
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
    with disk.hanging_reads() as hanging:
        await unless(hanging, kept.spool.open(kept.found.append))
    await kept.spool.close()

    assert kept.found == []
    assert contents(tmp_path) == before
    async with open_spool(tmp_path) as again:
        assert await again.head() == list(range(50))


async def test_a_segment_stays_while_the_rest_of_it_is_entered(tmp_path: Path, disk: FaultDisk) -> None:
    """What was readable of it is acknowledged at that moment."""
    async with open_spool(tmp_path) as killed:
        for number in range(30):
            await killed.spool.append([an_entry(number, payload=bytes(1000))])
        (segment,) = segments(tmp_path)
        as_it_is = segment.read_bytes()
    segment.write_bytes(as_it_is)  # without an end mark
    disk.unreadable = lambda _path, start, end: start < SECTOR.stop and end > SECTOR.start
    loop = asyncio.get_running_loop()
    dropped = threading.Event()

    async with open_spool(tmp_path, disk=disk, order_s=NOT_S) as again:
        known = await again.head()

        def drop() -> None:
            again.spool.drop(LANE, len(known))
            dropped.set()

        def acknowledge(operation: str) -> None:
            if operation == "extend .segment" and not dropped.is_set():  # by its end mark
                loop.call_soon_threadsafe(drop)
                dropped.wait()

        disk.observe = acknowledge
        disk.unreadable = lambda _path, _start, _end: False
        await again.tend()

        assert dropped.is_set()
        assert sorted(known + await again.head()) == list(range(30))


async def test_nothing_overtakes_while_a_segment_is_entered_that_can_be_read_again(
    tmp_path: Path, disk: FaultDisk
) -> None:
    await fill(tmp_path, list(range(2 * BATCH + 1)), [10_000])
    first = segments(tmp_path)[0]
    disk.unreadable = lambda path, _start, _end: path == first

    async with open_spool(tmp_path, disk=disk, order_s=LONG_S) as again:
        disk.unreadable = lambda _path, _start, _end: False
        tending = asyncio.create_task(again.tend())
        handed: list[int] = []
        while not tending.done() or again.spool.depth(LANE):
            head = await again.head()
            again.spool.drop(LANE, len(head))
            handed += head
            await asyncio.sleep(0)
        await tending

    assert handed == [*range(2 * BATCH + 1), 10_000]


async def test_nothing_overtakes_in_a_spool_that_opens_late(tmp_path: Path, disk: FaultDisk) -> None:
    await fill(tmp_path, [1], [2])
    first = segments(tmp_path)[0]
    disk.unreadable = lambda path, _start, _end: path == first
    kept = make_spool(tmp_path, disk=disk, order_s=LONG_S)
    async with open_spool(tmp_path):  # another process has it
        await kept.spool.open(kept.found.append)
        assert kept.spool.code == "locked"

    opening = asyncio.create_task(kept.tend())
    early = []
    while not opening.done():
        early += await kept.head()
        await asyncio.sleep(0)
    await opening
    await kept.spool.close()

    assert (early, ordinals(kept.found)) == ([], [2])
