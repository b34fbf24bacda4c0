"""Promises of the spool on real files: durable when confirmed, in order, removed only when acknowledged."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.commands.doctor_spool import check_spool
from bridge.errors import NotDurableError
from bridge.settings import SpoolSettings
from bridge.spool import store
from bridge.spool.availability import GROUP_MAX_BYTES
from bridge.spool.disk import Disk
from bridge.spool.segment import encrypted_size, read_header
from tests.logs import capture_logs
from tests.spooling import (
    CAPACITY_BYTES,
    NOBODY,
    OTHER,
    PARTITION,
    an_entry,
    as_somebody,
    entries,
    files,
    make_spool,
    open_spool,
    ordinals,
    segments,
)
from tests.waiting import until

# Only root can make what belongs to somebody else.
FORBIDDEN = "wrong_owner" if os.geteuid() == 0 else "not_writable"


async def test_what_is_appended_is_found_after_a_restart_in_order(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        await kept.put(3, partition=OTHER)
        await kept.spool.append([an_entry(4, payload=bytes(GROUP_MAX_BYTES + 1))])
        assert kept.spool.last_ordinal() == 4
    # The same nonce twice would reveal both records under one key, and allow to forge others.
    heads = [read_header(segments(tmp_path)[0].read_bytes(), at) for at in (0, encrypted_size(an_entry(1)))]
    assert len({head.nonce for head in heads if head is not None}) == 2

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 2, 3, 4]
        assert again.found[2] == an_entry(3, partition=OTHER)
        assert (again.spool.depth(PARTITION), again.spool.depth(OTHER)) == (3, 1)
        assert again.spool.last_ordinal() == 4
        assert await again.head() == [1, 2, 4]
        size = encrypted_size(an_entry(1))
        for most, most_bytes, expected in ((2, 4 * size, [1, 2]), (4, 2 * size, [1, 2]), (4, 1, [1])):
            assert ordinals(await again.spool.peek(PARTITION, most=most, most_bytes=most_bytes)) == expected
        again.spool.acknowledge(PARTITION, 2)
        assert again.spool.oldest_ms() == an_entry(3).at_ms


async def test_a_file_goes_when_nothing_is_left_in_it(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        kept.spool.acknowledge(PARTITION, 5)
        assert kept.spool.depth(PARTITION) == 0
        await kept.spool.maintain()
        await kept.put(3)
        assert len(segments(tmp_path)) == 1

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [3]
        await again.put(4)
        again.spool.acknowledge(PARTITION, 1)
        await again.put(5)
        assert len(segments(tmp_path)) == 1
        again.spool.acknowledge(PARTITION, 2)

    assert segments(tmp_path) == []
    assert files(tmp_path, "*.positions") == []


async def test_what_is_acknowledged_is_noted_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill would bring all of a long drain again."""
    monkeypatch.setattr(store, "POSITIONS_S", 0.01)
    async with open_spool(tmp_path, stalled_s=0.01) as kept:
        await kept.put(1)
        await kept.put(2, partition=OTHER)
        kept.spool.acknowledge(OTHER, 1)

        await until(lambda: files(tmp_path, "*.positions"))
        assert kept.spool.code == ""
    async with open_spool(tmp_path) as again:
        assert (ordinals(again.found), again.spool.last_ordinal()) == ([1], 2)


async def test_a_file_stays_while_a_group_is_on_its_way_into_it(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as before:
        await before.put(0)
    async with open_spool(tmp_path) as kept:
        await kept.spool.append([an_entry(1, payload=bytes(2_000_000))])
        call = asyncio.ensure_future(kept.spool.append([an_entry(2)]))
        for _ in range(4):  # until the writing thread has it
            await asyncio.sleep(0)
        kept.spool.acknowledge(PARTITION, 2)  # the file of the earlier process goes
        await call

        assert await kept.head() == [2]

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [2]


async def test_a_second_process_is_kept_out_until_the_first_has_left(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept, open_spool(tmp_path) as second:
        await kept.put(1)
        assert second.spool.code == "locked"
        with pytest.raises(NotDurableError, match="locked"):
            await second.put(2)

        await kept.spool.close()
        await second.spool.maintain()

        assert second.spool.code == ""
        assert ordinals(second.found) == [1]


async def test_the_capacity_is_kept_and_comes_back(tmp_path: Path) -> None:
    payload = bytes(100_000)
    with capture_logs() as logs:
        async with open_spool(tmp_path, capacity_bytes=10 * encrypted_size(an_entry(0, payload=payload))) as kept:
            calls = [kept.spool.append([an_entry(number, payload=payload)]) for number in range(11)]
            await asyncio.gather(calls[0])  # into a segment of its own, which can go
            assert list(map(str, await asyncio.gather(*calls[1:], return_exceptions=True))) == ["None"] * 9 + ["full"]
            await kept.spool.maintain()
            assert kept.spool.code == "full"
            assert kept.value("available") == 0

            kept.spool.acknowledge(PARTITION, 1)
            await kept.spool.maintain()

            assert kept.spool.code == ""
            await kept.spool.append([an_entry(10, payload=payload)])
            assert await kept.head() == [*range(1, 11)]

    told = [(each["event"], each.get("code")) for each in logs if "available" in each["event"]]
    available = ("worker.spool_available", None)
    assert told == [available, ("worker.spool_unavailable", "full"), available]


async def test_who_gave_up_before_it_was_begun_is_left_out(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        first, second, third = (asyncio.ensure_future(kept.spool.append([an_entry(n)])) for n in (1, 2, 3))
        await asyncio.sleep(0)  # until they wait for a group
        second.cancel()
        await asyncio.gather(first, third)

        assert await kept.head() == [1, 3]


async def test_what_is_held_is_told(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        assert (kept.value("events"), kept.value("oldest_event_timestamp_seconds")) == (0, 0)
        await kept.spool.append(entries([7, 8]))

        assert kept.value("events") == 2
        assert kept.value("oldest_event_timestamp_seconds") == 1_700_000_000.007
        size = sum(path.stat().st_size for path in segments(tmp_path))
        found = {name: kept.value(name) for name in ("bytes", "capacity_bytes", "free_bytes")}
        assert found == {"bytes": size, "capacity_bytes": CAPACITY_BYTES, "free_bytes": CAPACITY_BYTES - size}
        assert kept.value("available") == 1
        assert kept.value("fsync_duration_seconds_count") == 1


@pytest.fixture
def public() -> Iterator[Path]:
    """Give a directory that everybody may enter; those of the test runner are its own."""
    with tempfile.TemporaryDirectory(prefix="drx-spool-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


async def test_a_directory_that_is_not_there_is_made_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "var" / "spool"

    async with open_spool(directory) as kept:
        await kept.put(1)

        assert directory.stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in segments(directory))


async def test_a_directory_of_somebody_else_is_named(public: Path) -> None:
    directory = public / "spool"
    directory.mkdir(mode=0o555)
    kept = make_spool(directory)
    with as_somebody():
        await kept.spool.open(kept.found)
        assert (kept.spool.code, list(directory.iterdir())) == (FORBIDDEN, [])
    await kept.spool.close()


async def test_a_directory_that_lost_its_write_permission_is_noticed_before_it_is_needed(public: Path) -> None:
    directory = public / "spool"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    with as_somebody():
        async with open_spool(directory) as kept:
            await kept.put(1)
            directory.chmod(0o500)
            await kept.spool.maintain()
            await kept.put(2)  # the segment that is open takes it
            (finding,) = check_spool(SpoolSettings(dir=directory))
            assert "1 segment in it cannot be removed when delivered: SpoolUnavailable.md" in finding.text
            kept.spool.acknowledge(PARTITION, 2)
            await kept.spool.maintain()
            await until(lambda: kept.spool.failing == 1)
            directory.chmod(0o700)
            await kept.spool.maintain()
            assert (kept.spool.failing, segments(directory)) == (0, [])

            directory.chmod(0o500)
            await kept.spool.maintain()
            assert (kept.spool.code, kept.value("available")) == ("not_writable", 0)

            directory.chmod(0o700)
            await kept.spool.maintain()
            assert kept.spool.code == ""
            await kept.put(3)


async def test_segments_of_somebody_else_are_left_alone_and_found_when_they_are_ours(public: Path) -> None:
    """What is behind them in the spool would otherwise be delivered before them."""
    directory = public / "spool"
    async with open_spool(directory) as first:
        await first.put(1, 2)
    (path,) = segments(directory)
    path.chmod(0o000)
    if os.geteuid() == 0:
        for each in (directory, directory / "keys", *directory.rglob("*")):
            if each != path:
                os.chown(each, NOBODY, NOBODY)
    kept = make_spool(directory)
    with as_somebody():
        await kept.spool.open(kept.found)
        assert (kept.spool.code, kept.found) == (FORBIDDEN, [])
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    with as_somebody():
        await kept.spool.maintain()
        assert kept.spool.code == ""
        assert ordinals(kept.found) == [1, 2]
        await kept.spool.close()


def test_a_new_directory_is_durable_with_all_above_it(tmp_path: Path) -> None:
    """After a power cut, what was answered 202 would be gone with the directory."""
    synced: list[Path] = []

    class Noting(Disk):
        def sync_directory(self, directory: Path) -> None:
            synced.append(directory)
            super().sync_directory(directory)

    for _ in range(2):
        Noting().make_directory(tmp_path / "a" / "b")

    assert synced == [tmp_path / "a", tmp_path]
