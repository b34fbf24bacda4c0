"""The commands of `drx-bridge spool`: they report a directory correctly, and reading changes nothing."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.commands.spool import spool
from bridge.commands.spool_drain import Watch
from bridge.kafka.accepted import from_entry
from bridge.spool.inspect import survey
from bridge.spool.segment import PREFIX, key_of, segment_name
from bridge.spool.store import Held
from tests.fault_disk import FaultDisk
from tests.spooling import MARKER, OTHER, PARTITION, altered, an_entry, files, open_spool, segments, write_key

Run = Callable[..., tuple[int, Any]]
# Of the events 1 to 5, see `an_entry`.
TIMES = {"first": "2023-11-14T22:13:20.001000Z", "last": "2023-11-14T22:13:20.005000Z"}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, Any]:
        code = spool.main([*map(str, arguments), "--json"], standalone_mode=False)
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a spool with three events of one partition and two of another, one of them acknowledged."""
    write_key(tmp_path / "keys", secret=b"a" * 32)

    async def fill() -> None:
        async with open_spool(tmp_path) as kept:
            await kept.put(1, 2, 3)
            await kept.put(4, 5, partition=OTHER)
            kept.spool.acknowledge(PARTITION, 1)

    asyncio.run(fill())
    return tmp_path


def lock_up(directory: Path) -> None:
    (directory / "keys" / "current").unlink()
    write_key(directory / "keys", secret=b"b" * 32)


def spoil(directory: Path) -> None:
    (path,) = segments(directory)
    path.write_bytes(altered(path.read_bytes(), 300))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in files(directory)}


def test_a_status_says_what_is_held(directory: Path, run: Run) -> None:
    code, document = run("status", "--dir", directory)

    key = hashlib.sha256(b"a" * 32).hexdigest()[:16]
    assert code == 0
    assert document == {
        "directory": str(directory),
        "held": False,
        "code": "",
        "segments": 1,
        "bytes": segments(directory)[0].stat().st_size,
        "events": 4,
        **dict.fromkeys(("locked", "unknown", "lost", "unread", "damaged"), 0),
        "set_aside": [],
        "oldest": "2023-11-14T22:13:20.002000Z",
        "lanes": [
            {"topic": "drx.accounts.v1", "partition": 0, "events": 2},
            {"topic": "drx.prescriptions.v1", "partition": 3, "events": 2},
        ],
        "keys": [{"id": key, "file": "current", "is_current": True, "records": 5, **TIMES}],
    }


def test_people_are_told_the_same_and_nothing_of_a_payload(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock_up(directory)
    spool.main(["status", "--dir", str(directory)], standalone_mode=False)
    spool.main(["verify", "--dir", str(directory)], standalone_mode=False)

    told = capsys.readouterr()
    assert "events" in told.out
    assert "missing" in told.out
    assert told.err.endswith("5 records whose key is missing\n")
    assert MARKER.decode() not in told.out + told.err


def test_a_damaged_record_fails_it_and_nothing_is_changed(directory: Path, run: Run) -> None:
    spoil(directory)
    before = contents(directory)

    run("status", "--dir", directory)
    code, document = run("verify", "--dir", directory)

    assert (code, contents(directory)) == (1, before)
    (finding,) = document["findings"]
    assert (finding["lost"], finding["locked"], len(finding["damage"])) == (1, 0, 1)


def test_a_seal_that_does_not_hold_is_damage_whatever_the_check_sums_say(directory: Path) -> None:
    real, other = key_of(b"a" * 32), key_of(b"b" * 32)

    (state,) = survey(directory, {real.id: other._replace(id=real.id)}, read=from_entry)

    assert (state.lost, state.waiting, state.locked) == (6, 0, 0), "five records, and the end mark"


def test_what_the_disk_does_not_give_back_is_told_from_damage(directory: Path) -> None:
    disk, key = FaultDisk(directory), key_of(b"a" * 32)
    disk.unreadable = lambda _path, _start, _end: True

    (state,) = survey(directory, {key.id: key}, read=from_entry, disk=disk)

    assert (state.is_read, state.is_sound) == (False, False)
    assert (state.lost, state.damage, state.is_torn) == (0, [], False)


def test_a_locked_record_fails_it_until_its_key_is_given(
    directory: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = directory.parent / "vault"
    write_key(elsewhere, "old", secret=b"a" * 32)
    lock_up(directory)

    code, document = run("verify", "--dir", directory)
    assert (code, document["findings"][0]["locked"]) == (1, 5), "which of them is delivered is sealed, too"
    _, document = run("status", "--dir", directory)
    lost = {"id": key_of(b"a" * 32).id.hex(), "file": None, "is_current": False, "records": 5, **TIMES}
    assert lost in document["keys"]
    assert run("verify", "--dir", directory, "--key-dir", elsewhere)[0] == 0
    # As in a pod, with the volume of one that was removed.
    monkeypatch.setenv("BRIDGE_SPOOL__KEY_DIR", str(elsewhere))
    assert run("verify", "--dir", directory)[0] == 0

    (segment,) = segments(directory)
    (directory / "set-aside").mkdir()
    segment.rename(directory / "set-aside" / f"{segment.stem}-00000000.record_too_large")
    monkeypatch.undo()
    _, (kept,) = run("aside", "--dir", directory)
    assert (kept["topic"], kept["accepted_at"]) == (None, TIMES["first"])
    _, document = run("status", "--dir", directory)
    assert lost | {"records": 1, "last": TIMES["first"]} in document["keys"]


def test_what_another_version_wrote_fails_it(directory: Path, run: Run) -> None:
    asyncio.run(append(directory, b"\xff"))
    (directory / segment_name(5)).write_bytes(PREFIX + b"\xff")

    code, document = run("verify", "--dir", directory)

    assert code == 1
    assert [(each["unknown"], each["locked"], each["lost"]) for each in document["findings"]] == [(1, 0, 0)] * 2
    assert run("status", "--dir", directory)[1]["unknown"] == 2


async def append(directory: Path, payload: bytes) -> None:
    async with open_spool(directory) as kept:
        await kept.spool.append([an_entry(9, payload=payload)])


async def test_it_works_beside_the_process_that_has_the_spool(tmp_path: Path, run: Run) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        code, document = await asyncio.to_thread(run, "status", "--dir", tmp_path)
        assert (code, document["held"], document["events"]) == (0, True, 2)

        path = segments(tmp_path)[0]
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:90])  # a write that is under way
        assert (await asyncio.to_thread(run, "verify", "--dir", tmp_path))[0] == 0


@pytest.mark.virtual_time
@pytest.mark.parametrize("kept", [Held(0, 0, 0, 0), Held(0, 1, 0, 0), Held(0, 0, 1, 0), Held(0, 0, 0, 1)])
async def test_a_drain_ends_with_the_last_event_and_fails_where_anything_cannot_be_opened_or_read(kept: Held) -> None:
    """Nothing of that comes back while this process runs, so nothing is waited for."""
    loop = asyncio.get_running_loop()
    spool: Any = SimpleNamespace(held=kept._replace(events=5))
    writers: Any = SimpleNamespace(blocked=0, drained=0)
    parts: Any = SimpleNamespace(
        producer=SimpleNamespace(ready=True), known_ids=SimpleNamespace(finished=True), writers=writers
    )
    watch = Watch(parts, spool, patience_s=5.0)
    began = loop.time()

    def drain() -> None:
        spool.held, writers.drained = kept, 5

    loop.call_later(1, drain)
    await watch.run(asyncio.Event())

    outcome = watch.outcome
    assert loop.time() - began == pytest.approx(1, abs=1)
    assert (outcome.locked, outcome.damaged, outcome.unread) == kept[1:]
    assert (outcome.drained, outcome.left, outcome.is_complete) == (5, 0, not any(kept))
