"""Whether a lake exists, by its files."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.errors import TransientError
from consumers.archive.columns import schema_of
from consumers.archive.lake import ORPHAN_S, Lake
from consumers.archive.stores import LakeDirectory


def claimed(root: Path) -> Lake:
    lake = Lake(LakeDirectory(root), root=str(root))
    lake.claim("an-archive", begun=False)
    return lake


def test_a_full_disk_that_takes_empty_files_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a ping would pass, and the record that is tried be at fault."""
    lake = claimed(tmp_path)
    lake.probe()

    def full(handle: int) -> None:
        if os.fstat(handle).st_size:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TransientError, match="lake_enospc"):
        lake.probe()
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize("owner", [None, b"another"], ids=["nothing", "another lake"])
def test_a_place_that_is_not_the_lake_any_more_is_waited_for(tmp_path: Path, owner: bytes | None) -> None:
    """A volume that is unmounted leaves an empty directory: a lake there would be hidden by the volume later."""
    root, volume = tmp_path / "lake", tmp_path / "volume"
    lake = claimed(root)
    root.rename(volume)
    (root / "staging").mkdir(parents=True)  # as a start without the volume has made it
    if owner is not None:
        (root / "owner").write_bytes(owner)
    attempts: list[Callable[[], object]] = [
        lake.probe,
        lambda: lake.stage(schema_of().empty_table()),
        lambda: lake.publish("a.parquet", "events/a.parquet"),
    ]
    for attempt in attempts:
        with pytest.raises(TransientError, match="lake_missing") as raised:
            attempt()
        assert raised.value.systemic
    assert list((root / "staging").iterdir()) == []

    shutil.rmtree(root)
    volume.rename(root)
    lake.probe()


def test_a_host_whose_clock_is_ahead_takes_nothing_for_an_orphan_that_was_just_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is about to be committed, and without the file the lake would lack its events for ever."""
    lake = claimed(tmp_path)
    lake.stage(schema_of().empty_table())
    ahead = time.time() + 2 * ORPHAN_S
    monkeypatch.setattr("time.time", lambda: ahead)
    assert lake.orphans() == []

    (staged,) = (tmp_path / "staging").iterdir()
    os.utime(staged, (1, 1))
    assert lake.orphans() == [staged.name]
    assert list((tmp_path / "staging").iterdir()) == [staged]
