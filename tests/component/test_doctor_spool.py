"""What the doctor finds about the spool; it changes nothing there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from bridge.commands.doctor_spool import check_spool
from bridge.runtime.findings import Finding
from bridge.settings import Spool
from bridge.spool.segment import PREFIX, segment_name
from tests.spooling import as_somebody, files, open_spool, write_key


@pytest.fixture
def settings(tmp_path: Path) -> Spool:
    """Give a spool that has its key elsewhere and has not been used yet."""
    write_key(tmp_path / "keys")
    return Spool(dir=tmp_path / "spool", key_dir=tmp_path / "keys", capacity_bytes=1_048_576)


def found(settings: Spool) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_spool(settings)}


def verdicts(settings: Spool) -> dict[str, str]:
    return {check: finding.verdict for check, finding in found(settings).items()}


async def fill(settings: Spool) -> None:
    settings.dir.mkdir()
    async with open_spool(settings.dir, key_dir=settings.key_dir) as kept:
        await kept.put(1, 2, 3)


def test_a_spool_that_is_not_there_yet_is_fine_and_not_made(settings: Spool) -> None:
    assert verdicts(settings) == {"spool": "ok", "spool key": "ok", "spool room": "ok"}
    assert "made at the first start" in found(settings)["spool"].text
    assert not settings.dir.exists()


async def test_what_another_version_wrote_is_named(settings: Spool) -> None:
    await fill(settings)
    (settings.dir / segment_name(5)).write_bytes(PREFIX + b"\xff")

    finding = found(settings)["spool"]

    assert finding.verdict == "failed"
    assert "1 event that another version" in finding.text


def test_a_directory_that_is_not_ours_is_said() -> None:
    with tempfile.TemporaryDirectory(prefix="drx-doctor-") as name:
        Path(name).chmod(0o555)
        with as_somebody():
            (finding,) = check_spool(Spool(dir=Path(name)))

    assert finding.verdict == "failed"
    assert "cannot be written to" in finding.text


async def test_what_is_held_by_a_process_is_on_its_way(settings: Spool) -> None:
    settings.dir.mkdir()
    async with open_spool(settings.dir, key_dir=settings.key_dir) as kept:
        await kept.put(1, 2, 3)

        finding = found(settings)["spool"]

    assert finding.verdict == "ok"
    assert "in use, 3 events" in finding.text


async def test_what_no_process_holds_is_an_orphan_and_stays_as_it_is(settings: Spool) -> None:
    await fill(settings)
    before = {path: path.read_bytes() for path in files(settings.dir)}

    finding = found(settings)["spool"]

    assert finding.verdict == "warning"
    assert "3 events, and no process has it open" in finding.text
    assert "drx-bridge spool drain" in finding.advice
    assert {path: path.read_bytes() for path in files(settings.dir)} == before


async def test_events_whose_key_is_gone_are_a_failure(settings: Spool, tmp_path: Path) -> None:
    await fill(settings)
    write_key(tmp_path / "keys", secret=b"n" * 32)

    finding = found(settings)["spool"]

    assert finding.verdict == "failed"
    assert "3 events cannot be opened" in finding.text
    assert str(tmp_path / "keys") in finding.advice


def test_a_key_beside_what_it_seals_is_a_warning(tmp_path: Path) -> None:
    beside = Spool(dir=tmp_path)
    assert verdicts(beside)["spool key"] == "warning"
    assert "the first start makes one" in found(beside)["spool key"].text

    write_key(tmp_path / "keys")

    assert verdicts(beside)["spool key"] == "warning"
    assert "BRIDGE_SPOOL__KEY_DIR" in found(beside)["spool key"].advice


def test_a_key_that_others_may_read_is_named_and_not_shown(
    settings: Spool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys" / "current"
    path.chmod(0o644)

    finding = found(settings)["spool key"]

    assert finding.verdict == "failed"
    assert finding.text == f"{path}: key_exposed"
    assert "chmod" in finding.advice
    assert capsys.readouterr().out == ""


def test_a_capacity_that_the_disk_has_not_is_a_warning(settings: Spool) -> None:
    finding = found(settings.model_copy(update={"capacity_bytes": 1_099_511_627_776}))["spool room"]

    assert finding.verdict == "warning"
    assert "BRIDGE_SPOOL__CAPACITY_BYTES" in finding.advice
