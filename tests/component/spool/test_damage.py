"""Whatever happens to the files: every intact record comes back in order, what is damaged is set aside and counted."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.spool.segment import HEAD_BYTES, read_head
from tests.fault_disk import FaultDisk
from tests.spooling import (
    OTHER,
    PARTITION,
    altered,
    an_entry,
    damaged,
    make_spool,
    open_spool,
    ordinals,
    segments,
)

SEEDS = 1_000
# The last one is where an unfinished write is possible.
SEGMENTS = 3
PER_SEGMENT = 12
CAPACITY_BYTES = 1_048_576


@dataclass(frozen=True)
class Template:
    """An intact spool, to be copied and spoilt.

    Attributes:
        ranges: For each segment, where each record stands and which ordinal it has.
    """

    directory: Path
    ranges: dict[str, list[tuple[int, int, int]]]


def payload(ordinal: int) -> bytes:
    return b"%03d" % ordinal * (ordinal * 3)


def end_mark_of(template: Template, spoilt: Spoilt) -> bytes:
    return (template.directory / spoilt.segment.name).read_bytes()[-HEAD_BYTES:]


def ranges_of(content: bytes) -> list[tuple[int, int, int]]:
    """Walk over an intact segment by the lengths in it."""
    ranges, at = [], 0
    while at < len(content):
        head = read_head(content, at)
        assert head is not None
        if head.length:
            ranges.append((at, at + head.size, head.ordinal))
        at += head.size
    return ranges


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tmp_path_factory.mktemp("template")

    async def fill() -> None:
        for segment in range(SEGMENTS):
            async with open_spool(directory, capacity_bytes=CAPACITY_BYTES) as kept:
                for number in range(PER_SEGMENT):
                    ordinal = segment * PER_SEGMENT + number
                    partition = OTHER if ordinal % 3 == 0 else PARTITION
                    await kept.spool.append([an_entry(ordinal, partition=partition, payload=payload(ordinal))])

    asyncio.run(fill())
    return Template(directory, {path.name: ranges_of(path.read_bytes()) for path in segments(directory)})


@dataclass(frozen=True)
class Spoilt:
    """What was done to one segment, and what must be left of the spool.

    Attributes:
        content: The segment's bytes now.
        intact: Ordinals of the whole spool whose bytes are all there, in order.
        damaged: How many others stood in the bytes that were changed or removed.
        changed: True when anything is another than before.
        may_be_torn: True when it looks like an unfinished last write.
    """

    segment: Path
    content: bytes
    intact: list[int]
    damaged: int
    changed: bool
    may_be_torn: bool


def spoil(template: Template, directory: Path, rng: random.Random) -> Spoilt:
    """Change one segment in one way."""
    paths = segments(directory)
    path = rng.choice(paths)
    before = path.read_bytes()
    start = rng.randrange(len(before))
    length = rng.choice((1, 16, 100, 512, 2000))
    end = min(start + length, len(before))
    way = rng.choice(("flip", "truncate", "zero", "tail", "remove", "insert"))
    match way:
        case "flip":
            end = start + 1
            middle = bytes([before[start] ^ 1 << rng.randrange(8)])
        case "truncate":
            end, middle = len(before), b""
        case "zero":
            middle = bytes(end - start)
        case "tail":
            start = end = len(before)
            middle = rng.randbytes(length) + b"!"
        case "remove":
            middle = b""
        case _:
            end, middle = start, rng.randbytes(length) + b"!"
    content = before[:start] + middle + before[end:]
    path.write_bytes(content)
    changed = content != before
    # By the bytes, not by the places: a byte that is moved to the place of another may be equal to it.
    hit = {ordinal for first, last, ordinal in template.ranges[path.name] if before[first:last] not in content}
    everything = [ordinal for name in sorted(template.ranges) for _, _, ordinal in template.ranges[name]]
    at_the_end = end > len(before) - HEAD_BYTES and len(content) <= len(before)
    may_be_torn = path == paths[-1] and at_the_end
    return Spoilt(path, content, [each for each in everything if each not in hit], len(hit), changed, may_be_torn)


@pytest.mark.volume
async def test_of_a_thousand_spoilt_spools_every_intact_record_comes_back(template: Template, tmp_path: Path) -> None:
    damaged = torn = 0
    for seed in range(SEEDS):
        directory = tmp_path / str(seed)
        shutil.copytree(template.directory, directory)
        spoilt = spoil(template, directory, random.Random(seed))  # noqa: S311 - a seed is replayed by its number
        kept = make_spool(directory, capacity_bytes=CAPACITY_BYTES, disk=FaultDisk(directory))
        await kept.spool.open(kept.found)

        assert kept.spool.code == "", seed
        assert ordinals(kept.found) == spoilt.intact, seed
        assert all(entry.payload == payload(entry.ordinal) for entry in kept.found), seed
        if spoilt.may_be_torn:
            torn += 1
            assert kept.value("torn_tails_total") + kept.value("corrupt_records_total") <= spoilt.damaged + 1, seed
        else:
            damaged += 1
            assert kept.value("torn_tails_total") == 0, seed
            count = kept.value("corrupt_records_total")
            assert spoilt.changed <= count <= max(spoilt.damaged, 1), seed
            if spoilt.damaged and spoilt.content.endswith(end_mark_of(template, spoilt)):
                assert count == spoilt.damaged, seed
        await kept.spool.close()
        where = spoilt.segment if spoilt.segment.exists() else directory / "damaged" / spoilt.segment.name
        assert spoilt.may_be_torn or where.read_bytes() == spoilt.content, seed
        shutil.rmtree(directory)

    assert damaged > SEEDS / 2
    assert torn > SEEDS / 50


async def test_damage_that_comes_while_it_runs_is_left_out_and_counted(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3, 4)
        (path,) = segments(tmp_path)
        content = path.read_bytes()
        second = ranges_of(content)[1]
        path.write_bytes(altered(content, second[1] - 1))

        assert await kept.head() == [1]
        kept.spool.acknowledge(PARTITION, 1)
        assert await kept.head() == [3, 4]
        assert kept.spool.depth(PARTITION) == 2
        assert kept.value("corrupt_records_total") == kept.spool.held.damaged == 1
        assert damaged(tmp_path) == []

        kept.spool.acknowledge(PARTITION, 2)
    assert [each.name for each in damaged(tmp_path)] == [f"{path.stem}.positions", path.name]
    assert segments(tmp_path) == [tmp_path / "damaged" / path.name]


async def test_a_file_that_vanished_costs_its_events_and_nothing_else(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        segments(tmp_path)[0].unlink()

        assert await kept.head() == []
        assert kept.value("corrupt_records_total") == 2
        await kept.tend()
        await kept.put(3)
        assert await kept.head() == [3]


async def test_a_file_that_cannot_be_kept_elsewhere_stays_and_is_found_by_the_next_start(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    spoilt = altered(path.read_bytes(), 100)
    path.write_bytes(spoilt)
    (tmp_path / "damaged").write_bytes(b"in the way")

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [2, 3]
        again.spool.acknowledge(PARTITION, 2)
        await again.tend()
        assert segments(tmp_path) == [path]

    (tmp_path / "damaged").unlink()
    async with open_spool(tmp_path) as third:
        assert ordinals(third.found) == []
        assert third.value("corrupt_records_total") == 1
    assert (tmp_path / "damaged" / path.name).read_bytes() == spoilt


async def test_what_is_moved_back_is_read_again_without_what_was_delivered(tmp_path: Path) -> None:
    """A disk, or its cable, may have been at fault for a while."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(altered(sound, 100))
    async with open_spool(tmp_path) as again:
        again.spool.acknowledge(PARTITION, 2)
    path.write_bytes(sound)
    path.with_suffix(".positions").write_bytes((tmp_path / "damaged" / f"{path.stem}.positions").read_bytes())

    async with open_spool(tmp_path) as third:
        assert ordinals(third.found) == [1]


async def test_a_position_is_that_of_its_record_even_when_another_is_damaged(tmp_path: Path) -> None:
    """Were positions counted instead of named, the damage of a delivered record would hide one that was not."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3, 4)
        kept.spool.acknowledge(PARTITION, 2)
    (path,) = segments(tmp_path)
    path.write_bytes(path.read_bytes()[ranges_of(path.read_bytes())[0][1] :])

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [3, 4]


async def test_an_unfinished_last_write_is_cut_off_and_counted_once(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    whole = ranges_of(path.read_bytes())[1][1]
    path.write_bytes(path.read_bytes()[: whole + 90])

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [1, 2]
        assert (again.value("torn_tails_total"), again.value("corrupt_records_total")) == (1, 0)
        await again.put(4)

    async with open_spool(tmp_path) as third:
        assert ordinals(third.found) == [1, 2, 4]
        assert (third.value("torn_tails_total"), third.value("corrupt_records_total")) == (0, 0)
        assert await third.head() == [1, 2, 4]
