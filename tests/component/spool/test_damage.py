"""Whatever happens to the files: what is intact comes back in order, the rest is counted, and nothing is forged."""

import asyncio
import hashlib
import random
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.spool.segment import HEAD_BYTES, NONCE_BYTES, PREFIX, VERSION, key_of, read_head
from tests.fault_disk import FaultDisk
from tests.spooling import (
    OTHER,
    PARTITION,
    Kept,
    altered,
    an_entry,
    damaged,
    make_spool,
    open_spool,
    ordinals,
    segments,
    write_key,
)

SEEDS = 100
# The last one is where an unfinished write is possible.
SEGMENTS = 3
PER_SEGMENT = 12
CAPACITY_BYTES = 1_048_576


MAGIC = b"\x8bDRXAK\n\x01"
SECRET = b"s" * 32
IDS = [bytes(8), key_of(SECRET).id, b"no key's"]


@dataclass(frozen=True)
class Template:
    """An intact spool, to be copied: for each segment, where each record stands and which ordinal it has."""

    directory: Path
    ranges: dict[str, list[tuple[int, int, int]]]


def payload(ordinal: int) -> bytes:
    return b"%03d" % ordinal * (ordinal * 3)


def end_mark_of(template: Template, spoilt: "Spoilt") -> bytes:
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
    """What was done to one segment: the ordinals of the spool that are `intact`, and how many were `damaged`."""

    segment: Path
    content: bytes
    intact: list[int]
    damaged: int
    changed: bool
    may_be_torn: bool


def spoil(template: Template, directory: Path, rng: random.Random) -> Spoilt:
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


async def test_of_many_spoilt_spools_every_intact_record_comes_back(template: Template, tmp_path: Path) -> None:
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


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_key(tmp_path / "keys", secret=SECRET).parent


async def fill(directory: Path, keys: Path, *numbers: int) -> Path:
    async with open_spool(directory, key_dir=keys) as kept:
        for number in numbers:
            await kept.put(number)
    return segments(directory)[-1]


async def head(kept: Kept) -> list[int]:
    assert await kept.head() == ordinals(kept.found)
    return ordinals(kept.found)


async def test_positions_that_were_made_without_a_key_acknowledge_nothing(tmp_path: Path, keys: Path) -> None:
    segment = await fill(tmp_path / "spool", keys, *range(1, 7))
    content = struct.pack(">8sQI5I", MAGIC, int(segment.stem, 16), 5, *range(5))
    frame = content + hashlib.blake2b(content, digest_size=16).digest()
    segment.with_suffix(".positions").write_bytes(frame)

    async with open_spool(tmp_path / "spool", key_dir=keys) as again:
        assert await head(again) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("key_id", IDS)
async def test_an_end_mark_that_was_made_without_a_key_hides_no_loss(tmp_path: Path, keys: Path, key_id: bytes) -> None:
    segment = await fill(tmp_path / "spool", keys, *range(1, 7))
    await fill(tmp_path / "spool", keys, 7)
    clear = struct.pack(
        ">7sBIQIQQ8s12s", PREFIX, VERSION, 0, int(segment.stem, 16), 1, 0, 0, key_id, bytes(NONCE_BYTES)
    ) + bytes(4)
    mark = clear + struct.pack(">I", zlib.crc32(clear))
    content = segment.read_bytes()
    segment.write_bytes(content[: content.index(PREFIX, 1)] + mark)

    async with open_spool(tmp_path / "spool", key_dir=keys) as again:
        assert await head(again) == [1, 7]
        assert again.value("corrupt_records_total") >= 1


async def test_what_was_acknowledged_with_a_key_that_is_gone_is_delivered_again(tmp_path: Path, keys: Path) -> None:
    """Its records are locked meanwhile, and so are those that were delivered: nothing says which."""
    async with open_spool(tmp_path / "spool", key_dir=keys) as kept:
        await kept.put(1, 2, 3)
        kept.spool.acknowledge(PARTITION, 1)
    (keys / "current").rename(tmp_path / "vault")
    write_key(keys, secret=b"n" * 32)
    for _ in range(2):
        async with open_spool(tmp_path / "spool", key_dir=keys) as without:
            assert without.value("locked_records") == 3
            assert without.value("corrupt_records_total") == 0
            await without.put(4)
            without.spool.acknowledge(PARTITION, 1)
    (tmp_path / "vault").rename(keys / "previous")

    async with open_spool(tmp_path / "spool", key_dir=keys) as again:
        assert await head(again) == [2, 3]
        assert again.value("corrupt_records_total") == 0


async def test_what_a_process_without_the_key_could_not_mark_as_ended_counts_as_whole(
    tmp_path: Path, keys: Path
) -> None:
    """A killed process left no end mark; the next one has another key, and a mark with that one counts, too."""
    segment = await fill(tmp_path / "spool", keys, 1, 2)
    content = segment.read_bytes()
    segment.write_bytes(content[: content.rindex(PREFIX)])
    (keys / "current").rename(tmp_path / "vault")
    write_key(keys, secret=b"n" * 32)
    await fill(tmp_path / "spool", keys, 3)
    (tmp_path / "vault").rename(keys / "previous")

    async with open_spool(tmp_path / "spool", key_dir=keys) as again:
        assert await head(again) == [1, 2, 3]
        assert again.value("corrupt_records_total") == 0
