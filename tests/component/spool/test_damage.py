"""After any damage to the files: intact records are recovered in order, damage is counted, and no record is forged."""

import hashlib
import struct
import zlib
from pathlib import Path

import pytest

from bridge.spool.segment import NONCE_BYTES, PREFIX, VERSION, encrypted_size, key_of
from tests.spooling import PARTITION, Kept, altered, an_entry, damaged, open_spool, ordinals, segments, write_key

MAGIC = b"\x8bDRXAK\n\x01"
SECRET = b"s" * 32
# Of each record here.
SIZE = encrypted_size(an_entry(1))
IDS = [bytes(8), key_of(SECRET).id, b"no key's"]


async def test_damage_that_comes_while_it_runs_is_left_out_and_counted(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3, 4)
        (path,) = segments(tmp_path)
        path.write_bytes(altered(path.read_bytes(), 2 * SIZE - 1))

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
    """One record is altered, and of the next one something is missing: a third one is sooner than its length says."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    content = altered(path.read_bytes(), 100)
    spoilt = content[: SIZE + 100] + content[SIZE + 110 :]
    path.write_bytes(spoilt)
    (tmp_path / "damaged").write_bytes(b"in the way")

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [3]
        again.spool.acknowledge(PARTITION, 1)
        await again.spool.maintain()
        assert segments(tmp_path) == [path]

    (tmp_path / "damaged").unlink()
    async with open_spool(tmp_path) as third:
        assert ordinals(third.found) == []
        assert third.value("corrupt_records_total") == 2
    assert (tmp_path / "damaged" / path.name).read_bytes() == spoilt


@pytest.mark.parametrize("whole", [[], [1], [1, 2, 3]])
async def test_an_unfinished_last_write_is_cut_off_and_counted_once(tmp_path: Path, whole: list[int]) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    content = path.read_bytes()  # the last case has its end mark, with zeros behind
    path.write_bytes(content[: len(whole) * SIZE + 90] if len(whole) < 3 else content + bytes(90))

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == whole
        assert (again.value("torn_tails_total"), again.value("corrupt_records_total")) == (1, 0)
        await again.put(4)

    async with open_spool(tmp_path) as third:
        assert (third.value("torn_tails_total"), third.value("corrupt_records_total")) == (0, 0)
        assert await third.head() == ordinals(third.found) == [*whole, 4]


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


async def test_what_a_process_without_the_key_could_not_end_counts_as_whole(tmp_path: Path, keys: Path) -> None:
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
