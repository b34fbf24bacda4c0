"""Keys: generated once, rotated without a restart; without a key no record is lost or stored in plaintext."""

import asyncio
import base64
from pathlib import Path

import pytest

from bridge.commands.spool import spool
from bridge.errors import ConfigError, NotDurableError
from bridge.spool.recovery import BATCH
from bridge.spool.segment import Entry, key_of
from tests.logs import capture_logs
from tests.spooling import (
    MARKER,
    OTHER,
    PARTITION,
    Found,
    altered,
    an_entry,
    damaged,
    files,
    make_spool,
    open_spool,
    ordinals,
    segments,
    write_key,
)

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return write_key(tmp_path / "keys", secret=OLD).parent


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def turn(keys: Path) -> None:
    """Bring a new key into force and keep the old one, as the manual says."""
    (keys / "current").rename(keys / "previous")
    write_key(keys, secret=NEW)


def take_away(keys: Path, slot: str) -> None:
    (keys / slot).rename(keys.parent / "vault")


def bring_back(keys: Path, slot: str) -> None:
    (keys.parent / "vault").rename(keys / slot)


async def test_the_first_start_makes_a_key_that_only_its_owner_reads(directory: Path) -> None:
    async with open_spool(directory) as kept:
        await kept.put(1)
        path = directory / "keys" / "current"
        content = path.read_bytes()

        assert [each.name for each in path.parent.iterdir()] == ["current"]
        assert path.stat().st_mode & 0o777 == 0o600
        assert content.startswith(b"spk_")
        assert len(base64.b64decode(content[4:].strip())) == 32

    async with open_spool(directory) as again:
        assert ordinals(again.found) == [1]
        assert path.read_bytes() == content


async def test_a_key_directory_elsewhere_that_is_not_there_was_not_mounted(directory: Path, tmp_path: Path) -> None:
    """A key made there would be gone with the pod, and with it whatever it sealed."""
    async with open_spool(directory, key_dir=tmp_path / "missing") as kept:
        assert kept.spool.code == "no_key"
        assert not (tmp_path / "missing").exists()
        with pytest.raises(NotDurableError, match="no_key"):
            await kept.put(1)

        write_key(tmp_path / "missing")
        await kept.spool.maintain()
        assert kept.spool.code == ""
        await kept.put(1)


async def test_no_raw_file_holds_anything_of_a_payload_or_its_partition(directory: Path) -> None:
    async with open_spool(directory) as kept:
        await kept.put(*range(50))
        kept.spool.acknowledge(PARTITION, 10)
        path = segments(directory)[0]
        path.write_bytes(altered(path.read_bytes(), 6000))
        kept.spool.acknowledge(PARTITION, len(await kept.head()))
        assert await kept.head()
    every = files(directory)

    assert {path.suffix for path in every} >= {".segment", ".positions"}
    for path in every:
        assert MARKER not in path.read_bytes()
        assert PARTITION[0].encode() not in path.read_bytes()


async def test_a_turned_key_seals_the_next_file_and_the_old_one_opens_the_last(directory: Path, keys: Path) -> None:
    async with open_spool(directory, key_dir=keys, capacity_bytes=1_048_576) as kept:
        await kept.spool.append([an_entry(1, payload=bytes(70_000))])
        turn(keys)
        await kept.spool.append([an_entry(2, payload=bytes(70_000))])
        assert await kept.head() == [1, 2]

    (keys / "previous").unlink()
    async with open_spool(directory, key_dir=keys) as again:
        assert ordinals(again.found) == [2]
        assert again.value("locked_records") == 1


async def test_without_its_key_a_record_is_locked_until_that_is_back(directory: Path, keys: Path) -> None:
    async with open_spool(directory, key_dir=keys) as kept:
        await kept.put(1, 2)
        await kept.put(3, partition=OTHER)
    turn(keys)
    take_away(keys, "previous")

    async with open_spool(directory, key_dir=keys) as again:
        assert again.found == []
        assert again.spool.code == ""
        assert again.spool.last_ordinal() == 3
        assert (again.value("locked_records"), again.value("corrupt_records_total")) == (3, 0)
        await again.put(4)
        assert await again.head() == [4]
        bring_back(keys, "previous")
        for _ in range(2):
            await again.spool.maintain()
            assert ordinals(again.found) == [1, 2, 3]
            assert (len(segments(directory)), again.value("locked_records")) == (2, 0)
            assert (await again.head(), await again.head(OTHER)) == ([4, 1, 2], [3])

    async with open_spool(directory, key_dir=keys) as third:
        assert ordinals(third.found) == [1, 2, 3, 4]
        assert (await third.head(), await third.head(OTHER)) == ([1, 2, 4], [3])
        third.spool.acknowledge(PARTITION, 3)
        third.spool.acknowledge(OTHER, 1)
    assert segments(directory) == []


async def test_what_a_lost_key_sealed_is_given_up_only_on_request_and_kept(directory: Path, keys: Path) -> None:
    async with open_spool(directory, key_dir=keys) as kept:
        await kept.put(1, 2, 3)
        await kept.spool.set_aside(PARTITION, code="record_too_large")
    (lost,) = segments(directory)
    before = lost.read_bytes()
    identity = key_of(OLD).id.hex()
    words = ["aside", "--dir", str(directory), "--key-dir", str(keys), "--reason", "the vault burnt", "--lost-key"]

    with pytest.raises(ConfigError, match="will be delivered"):
        spool.main([*words, identity], standalone_mode=False)
    turn(keys)
    take_away(keys, "previous")
    async with open_spool(directory, key_dir=keys) as again:
        await again.put(4)
        with pytest.raises(ConfigError, match="nothing is encrypted"):
            spool.main([*words, "no key"], standalone_mode=False)
        await again.spool.maintain()
        assert (again.value("locked_records"), damaged(directory)) == (3, [])

        assert spool.main([*words, identity], standalone_mode=False) == 0
        await again.spool.maintain()
        assert (again.value("locked_records"), again.value("set_aside_records")) == (0, 0)
        assert again.value("corrupt_records_total") == 0
        assert await again.head() == [4]

    assert [path.suffix for path in damaged(directory)] == [".record_too_large", ".positions", ".segment"]
    assert (directory / "damaged" / lost.name).read_bytes() == before


async def test_what_was_locked_comes_before_what_is_taken_when_the_key_is_back(directory: Path, keys: Path) -> None:
    """Its file stays, also if the records unlocked first are drained before the rest is known."""
    async with open_spool(directory, key_dir=keys) as kept:
        await kept.put(*range(BATCH + 1))
    take_away(keys, "current")
    codes: list[str] = []

    class Watching(Found):
        def recovered(self, entry: Entry) -> None:
            super().recovered(entry)
            codes.append(again.spool.code)
            if entry.ordinal < BATCH:
                asyncio.get_running_loop().call_soon(again.spool.acknowledge, PARTITION, 1)

    again = make_spool(directory, key_dir=keys)
    await again.spool.open(Watching())
    bring_back(keys, "current")
    await again.spool.maintain()

    assert (codes, again.spool.code) == (["no_key"] * (BATCH + 1), "")
    assert await again.head() == [BATCH]
    await again.spool.close()


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"spk_", 0o600),
        (b"spk_" + base64.b64encode(b"k" * 31), 0o600),
        (b"spk_" + base64.b64encode(b"k" * 32) + b"!", 0o600),
        (b"whsec_" + base64.b64encode(b"k" * 32), 0o600),
        (b"spk_" + base64.b64encode(b"k" * 32), 0o604),
        (b"spk_" + base64.b64encode(b"k" * 32), 0o620),
        (b"spk_" + base64.b64encode(b"k" * 32), 0o610),
    ],
)
async def test_a_file_that_is_no_key_or_that_others_may_read_seals_nothing(
    directory: Path, keys: Path, content: bytes, mode: int
) -> None:
    (keys / "current").write_bytes(content)
    (keys / "current").chmod(mode)

    with capture_logs() as logs:
        async with open_spool(directory, key_dir=keys) as kept:
            await kept.spool.maintain()
            assert kept.spool.code == "no_key"
            assert (keys / "current").read_bytes() == content
    assert [each["event"] for each in logs].count("worker.spool_key_refused") == 1


async def test_a_key_whose_file_is_gone_is_noticed_in_a_round_and_seals_no_more(directory: Path, keys: Path) -> None:
    async with open_spool(directory, key_dir=keys) as kept:
        take_away(keys, "current")
        await kept.spool.maintain()

        assert (kept.spool.code, kept.value("available")) == ("no_key", 0)
        with pytest.raises(NotDurableError, match="no_key"):
            await kept.put(1)

        bring_back(keys, "current")
        await kept.spool.maintain()
        assert (kept.spool.code, kept.value("available")) == ("", 1)
        await kept.put(2)

    async with open_spool(directory, key_dir=keys) as again:
        assert ordinals(again.found) == [2]


@pytest.mark.parametrize("is_begun", [False, True])
async def test_the_first_append_of_an_outage_looks_for_the_key(directory: Path, keys: Path, *, is_begun: bool) -> None:
    """Also when a segment of the outage before is still open, empty."""
    async with open_spool(directory, key_dir=keys) as kept:
        if is_begun:
            await kept.put(1)
            kept.spool.acknowledge(PARTITION, 1)
        take_away(keys, "current")

        with pytest.raises(NotDurableError, match="no_key"):
            await kept.put(2)
        assert kept.spool.code == "no_key"


async def test_a_key_that_live_records_need_is_missed_although_another_seals(directory: Path, keys: Path) -> None:
    async with open_spool(directory, key_dir=keys) as kept:
        await kept.put(1)
        turn(keys)
        take_away(keys, "previous")
        await kept.spool.maintain()

        assert kept.spool.code == "no_key"
        assert await kept.head() == [1]
        kept.spool.acknowledge(PARTITION, 1)
        await kept.spool.maintain()
        assert kept.spool.code == ""


async def test_a_key_may_have_another_file(directory: Path, keys: Path) -> None:
    """A rotation renames it, and may be looked at half way."""
    async with open_spool(directory, key_dir=keys) as kept:
        await kept.put(1)
        (keys / "current").rename(keys / "previous")
        await kept.spool.maintain()

        assert kept.spool.code == ""
        await kept.put(2)
        assert await kept.head() == [1, 2]
