"""Directories as operators give them: missing, not ours, read-only, full; the process starts and says what is wrong."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.spool.disk import Disk
from tests.spooling import NOBODY, as_somebody, make_spool, open_spool, ordinals, segments


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


async def test_a_directory_that_cannot_be_made_is_no_stopped_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    async with open_spool(tmp_path / "file" / "spool") as kept:
        assert kept.spool.code == "not_a_directory"
        await kept.tend()
        assert kept.spool.code == "not_a_directory"

        (tmp_path / "file").unlink()
        await kept.tend()
        assert kept.spool.code == ""


async def test_a_directory_of_somebody_else_is_named(public: Path) -> None:
    directory = public / "spool"
    directory.mkdir(mode=0o555)
    kept = make_spool(directory)
    with as_somebody():
        await kept.spool.open(kept.found)
        assert kept.spool.code == "wrong_owner"
        directory_after = list(directory.iterdir())
    await kept.spool.close()

    assert directory_after == []


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
        assert (kept.spool.code, kept.found) == ("wrong_owner", [])
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    with as_somebody():
        await kept.tend()
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
