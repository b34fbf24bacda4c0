"""What an instance gives rises, whatever becomes of its clock, its process and its disk."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from bridge.kafka.ordinals import Ordinals
from tests.fault_disk import FaultDisk
from tests.spooling import files

NOON_S = 1_770_000_000
AGO_S = NOON_S - 86_400
BLOCK = 100


def life(directory: Path, now_s: int, *, disk: FaultDisk | None = None, first: int = 0) -> Ordinals:
    return Ordinals(
        directory / "ordinals",
        first=first,
        is_usable=lambda: True,
        now_ns=lambda: now_s * 10**9,
        disk=disk,
        block=BLOCK,
    )


async def begun(directory: Path, now_s: int) -> Ordinals:
    ordinals = life(directory, now_s)
    await ordinals.keep()
    return ordinals


async def test_they_begin_at_the_clock_and_rise_by_one(tmp_path: Path) -> None:
    first = NOON_S * 10**6

    assert list(islice(await begun(tmp_path, NOON_S), 3)) == [first, first + 1, first + 2]


async def test_they_begin_above_what_is_known_by_other_means(tmp_path: Path) -> None:
    assert next(life(tmp_path, NOON_S, first=NOON_S * 10**6 + 7)) == NOON_S * 10**6 + 7


async def test_they_rise_although_the_clock_was_set_back_and_the_process_killed(tmp_path: Path) -> None:
    given = list(islice(await begun(tmp_path, NOON_S), BLOCK))
    given += islice(await begun(tmp_path, AGO_S), BLOCK)
    given += islice(await begun(tmp_path, AGO_S), BLOCK)

    assert given == sorted(set(given))


async def test_the_note_stays_ahead_of_a_long_life(tmp_path: Path) -> None:
    ordinals = await begun(tmp_path, NOON_S)
    given: list[int] = []
    for _ in range(20):
        given += islice(ordinals, BLOCK // 2)
        await ordinals.keep()

    assert next(await begun(tmp_path, AGO_S)) > max(given)


async def test_a_disk_that_refuses_costs_nothing_but_the_note_and_is_asked_again(tmp_path: Path) -> None:
    disk = FaultDisk(tmp_path)
    disk.write_failures = 1
    ordinals = life(tmp_path, NOON_S, disk=disk)
    await ordinals.keep()
    given = list(islice(ordinals, 3))
    assert given[0] == NOON_S * 10**6

    await ordinals.keep()

    assert next(await begun(tmp_path, AGO_S)) > max(given)


@pytest.mark.parametrize("note", [b"\0" * 16, b"", b"9" * 19 + b"\n", b"-1\n"])
async def test_a_note_that_is_no_ordinal_is_none(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "ordinals").write_bytes(note)

    assert next(await begun(tmp_path, NOON_S)) == NOON_S * 10**6


async def test_nothing_is_touched_where_there_is_no_spool(tmp_path: Path) -> None:
    await Ordinals(tmp_path / "ordinals", is_usable=lambda: False).keep()

    assert files(tmp_path) == []
