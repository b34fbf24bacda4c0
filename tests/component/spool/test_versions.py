"""A spool of another version of the bridge: no record is lost, whichever version starts next."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.kafka.accepted import from_entry
from bridge.spool import segment as spool_segment
from bridge.spool.inspect import survey
from bridge.spool.keys import KeyRing
from bridge.spool.payload import pack
from bridge.spool.segment import HEADER_BYTES, PREFIX, VERSION, Entry, segment_name
from tests.spooling import (
    OTHER,
    PARTITION,
    Found,
    Kept,
    a_record,
    an_entry,
    damaged,
    open_spool,
    ordinals,
    segments,
    write_key,
)

LATER = VERSION + 1
# Nothing that a clock gives, and older than all that it gives.
NUMBER = 5


@contextmanager
def later_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be the next version, which writes another format and reads this one as well."""
    with monkeypatch.context() as patch:
        patch.setattr(spool_segment, "VERSION", LATER)
        patch.setattr(spool_segment, "READABLE", frozenset({VERSION, LATER}))
        yield


async def test_two_versions_may_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
    with later_version(monkeypatch):
        async with open_spool(tmp_path) as kept:
            assert ordinals(kept.found) == [1, 2]
            await kept.put(3, 4)
            await kept.put(5, partition=OTHER)
            kept.spool.acknowledge(PARTITION, 1)
    later = segments(tmp_path)[-1]
    content = later.read_bytes()

    for _ in range(2):
        async with open_spool(tmp_path) as kept:
            assert ordinals(kept.found) == [2]
            assert (kept.value("locked_records"), kept.value("corrupt_records_total")) == (3, 0)
            assert (kept.spool.code, kept.spool.last_ordinal()) == ("", 2)
            await kept.spool.maintain()
            assert await kept.head() == [2]
    async with open_spool(tmp_path) as kept:
        await kept.put(6)
        kept.spool.acknowledge(PARTITION, 1)
    assert later.read_bytes() == content
    assert damaged(tmp_path) == []
    ring = KeyRing(tmp_path / "keys")
    ring.load()
    assert [each.unknown for each in survey(tmp_path, ring.decrypting, read=from_entry)][-2:] == [3, 0]

    with later_version(monkeypatch):
        async with open_spool(tmp_path) as kept:
            assert ordinals(kept.found) == [3, 4, 5, 6]
            assert kept.value("locked_records") == 0
            kept.spool.acknowledge(PARTITION, 3)
            kept.spool.acknowledge(OTHER, 1)
    assert segments(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        PREFIX + bytes([LATER]),
        PREFIX + bytes([LATER]) + b"whatever a later version does with its files" * 40,
        PREFIX + bytes([LATER]) + bytes(5000),
        PREFIX + b"\x00" + b"?" * 100,
    ],
)
async def test_a_file_of_another_version_is_kept_whatever_stands_in_it(tmp_path: Path, content: bytes) -> None:
    write_key(tmp_path / "keys")
    path = tmp_path / segment_name(NUMBER)
    path.write_bytes(content)
    for _ in range(2):
        async with open_spool(tmp_path) as kept:
            await kept.put(1)
            kept.spool.acknowledge(PARTITION, 1)
            await kept.spool.maintain()

            assert (kept.value("locked_records"), kept.value("corrupt_records_total")) == (1, 0)
            assert kept.value("torn_tails_total") == 0
        assert path.read_bytes() == content
        assert damaged(tmp_path) == []


async def test_a_changed_version_byte_amid_records_of_ours_is_damage(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
    (path,) = segments(tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[: HEADER_BYTES - 61] + bytes([LATER]) + raw[HEADER_BYTES - 60 :])
    assert path.read_bytes()[: len(PREFIX) + 1] == PREFIX + bytes([LATER])

    async with open_spool(tmp_path) as kept:
        assert ordinals(kept.found) == [2, 3]
        assert (kept.value("locked_records"), kept.value("corrupt_records_total")) == (0, 1)


class Reading(Found):
    """Does with an entry what the partition writers do: reads it."""

    def __init__(self, kept: Kept) -> None:
        kept.found = self

    def recovered(self, entry: Entry) -> None:
        from_entry(entry)
        super().recovered(entry)


async def test_a_payload_of_another_layout_is_kept_for_the_version_that_reads_it(tmp_path: Path) -> None:
    later = bytes([LATER]) + b"something new" + pack(*a_record(2)[2:])
    async with open_spool(tmp_path) as kept:
        await kept.put(1)
        await kept.spool.append([an_entry(2, payload=later)])
        await kept.put(3)

    for _ in range(2):
        async with open_spool(tmp_path, drain=Reading) as kept:
            assert ordinals(kept.found) == [1, 3]
            assert (kept.value("locked_records"), kept.value("corrupt_records_total")) == (1, 0)
            await kept.spool.maintain()
            assert await kept.head() == [1, 3]
    key = tmp_path / "keys" / "current"
    away = key.rename(tmp_path / "away")
    async with open_spool(tmp_path, drain=Reading) as kept:
        assert kept.value("locked_records") == 3
        away.rename(key)
        await kept.spool.maintain()
        assert (ordinals(kept.found), kept.value("locked_records")) == ([1, 3], 1)
        kept.spool.acknowledge(PARTITION, 2)
        assert len(segments(tmp_path)) == 1

    async with open_spool(tmp_path) as kept:  # of a version that reads any
        assert [entry.payload for entry in kept.found] == [later]
        kept.spool.acknowledge(PARTITION, 1)
    assert segments(tmp_path) == []
