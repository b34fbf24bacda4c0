"""Records that Kafka refuses permanently: kept encrypted, set aside, and listed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.spool import spool
from bridge.spool import set_aside
from tests.fault_disk import FaultDisk
from tests.spooling import MARKER, OTHER, PARTITION, Kept, files, open_spool, ordinals

CODE = "record_too_large"


def kept_aside(directory: Path) -> list[Path]:
    return files(directory, "set-aside/*")


async def set_one_aside(kept: Kept) -> None:
    assert await kept.spool.set_aside(PARTITION, code=CODE)


async def test_it_is_kept_sealed_and_what_is_behind_it_gets_on(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
        await kept.put(4, partition=OTHER)

        await set_one_aside(kept)

        assert (await kept.head(), await kept.head(OTHER)) == ([2, 3], [4])
        assert kept.value("set_aside_records") == 1
        (record,) = kept_aside(tmp_path)
        assert record.suffix == f".{CODE}"
        assert MARKER not in record.read_bytes()
        assert record.stat().st_mode & 0o777 == 0o600

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [2, 3, 4]
        await again.spool.maintain()
        assert again.value("set_aside_records") == 1
        record.unlink()
        await again.spool.maintain()
        assert again.value("set_aside_records") == 0


@pytest.mark.parametrize("fault", ["disk", "many"])
async def test_what_cannot_be_copied_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    disk, order = FaultDisk(tmp_path), list[str]()
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1, 2, 3)
        disk.observe = order.append
        await set_one_aside(kept)
        assert "sync directory" in order[order.index("sync") :]
        if fault == "disk":
            disk.sync_failures = 1
        else:
            monkeypatch.setattr(set_aside, "FILES_MAX", 1)

        assert not await kept.spool.set_aside(PARTITION, code=CODE)
        assert await kept.head() == [2, 3]
        assert len([path for path in kept_aside(tmp_path) if path.suffix != ".part"]) == 1


def shown(capsys: pytest.CaptureFixture[str], directory: Path, *words: str) -> list[dict[str, Any]]:
    assert spool.main(["aside", "--dir", str(directory), "--json", *words], standalone_mode=False) == 0
    return list(json.loads(capsys.readouterr().out.splitlines()[-1]))


async def test_it_is_shown_as_far_as_keys_and_files_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        for _ in range(2):
            await set_one_aside(kept)
    first, second = shown(capsys, tmp_path)
    assert (first["code"], first["topic"], first["partition"]) == (CODE, *PARTITION)
    assert shown(capsys, tmp_path, second["name"]) == [second]

    (tmp_path / "set-aside" / first["name"]).write_bytes(b"damaged")
    shutil.move(tmp_path / "keys" / "current", tmp_path / "vault")
    listed = [(each["name"], each["topic"], each["key"]) for each in shown(capsys, tmp_path)]
    assert listed == [(first["name"], None, ""), (second["name"], None, second["key"])]
