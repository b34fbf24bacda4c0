"""What an operator has set aside: kept sealed, out of the way, and delivered when it is put back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog

from bridge.commands import spool_aside
from bridge.commands.spool import spool
from bridge.commands.spool_aside import _write
from bridge.errors import ConfigError
from bridge.spool.inspect import survey
from bridge.spool.segment import Partition
from tests.audit_lines import audit_lines
from tests.fault_disk import FaultDisk
from tests.kafka import HANG_S
from tests.spooling import MARKER, OTHER, PARTITION, Kept, files, open_spool, ordinals, segments, write_key

TOO_LARGE = "record_too_large"


@pytest.fixture(autouse=True)
def keys(tmp_path: Path) -> Path:
    return write_key(tmp_path / "keys").parent


def ask(
    directory: Path, verb: str = "set_aside", *, partition: Partition = PARTITION, name: str = "a", **changes: Any
) -> Path:
    """Leave a request as the command does."""
    path = directory / f"{name}.request"
    path.write_text(json.dumps(asked(verb, partition=partition, **changes)))
    return path


def asked(verb: str = "set_aside", **changes: Any) -> dict[str, Any]:
    """Return what a request says."""
    common = {"partition": PARTITION, "forced": False, "names": [], "actor": "ann", "reason": "too large"}
    return {"verb": verb} | common | {"expires_at": time.time() + HANG_S} | changes


def outcome(request: Path) -> dict[str, Any]:
    return dict(json.loads(request.with_suffix(".outcome").read_text()))


def kept_aside(directory: Path) -> list[Path]:
    return files(directory, "set-aside/*.record")


async def set_one_aside(kept: Kept, directory: Path, partition: Partition = PARTITION) -> None:
    ask(directory, partition=partition)
    await kept.tend()
    assert await kept.spool.set_aside(partition, refused=TOO_LARGE)


async def test_a_refused_record_is_set_aside_and_what_is_behind_it_gets_on(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2, 3)
        await kept.put(4, partition=OTHER)
        request = ask(tmp_path)
        await kept.tend()
        assert await kept.head() == [1, 2, 3]

        assert await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)

        assert (await kept.head(), await kept.head(OTHER)) == ([2, 3], [4])
        assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)
        assert kept.value("set_aside_records") == 1
        (record,) = kept_aside(tmp_path)
        assert outcome(request) == {"outcome": "done", "names": [record.stem]}
        assert not request.exists()
        assert MARKER not in record.read_bytes()
        note = json.loads(record.with_suffix(".json").read_text())
        assert {name: note[name] for name in ("topic", "partition", "code", "actor", "reason")} == {
            "topic": PARTITION[0],
            "partition": PARTITION[1],
            "code": TOO_LARGE,
            "actor": "ann",
            "reason": "too large",
        }
        assert {path.stat().st_mode & 0o777 for path in (record, record.with_suffix(".json"))} == {0o600}

    async with open_spool(tmp_path) as again:
        assert ordinals(again.found) == [2, 3, 4]
        await again.tend()
        assert again.value("set_aside_records") == 1


async def test_what_is_put_back_is_delivered_behind_what_waits(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        await set_one_aside(kept, tmp_path)
        request = ask(tmp_path, "put_back")
        await kept.tend()

        assert outcome(request)["outcome"] == "done"
        assert ordinals(kept.found) == [1]
        assert await kept.head() == [2, 1]
        assert (kept_aside(tmp_path), kept.value("set_aside_records")) == ([], 0)
        await kept.put(3)
        assert await kept.head() == [2, 1, 3]
        kept.spool.acknowledge(PARTITION, 3)
    assert segments(tmp_path) == []
    assert files(tmp_path, "set-aside/*") == []


async def test_a_restart_finds_what_was_put_back_and_nothing_damaged(tmp_path: Path) -> None:
    """A segment that was open meanwhile may end in an unfinished write only if it is the newest."""
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        await set_one_aside(kept, tmp_path)
        await kept.put(3)
        ask(tmp_path, "put_back")
        await kept.tend()
        await kept.put(4)
        shutil.copytree(tmp_path, tmp_path.parent / "crashed")
    newest = segments(tmp_path.parent / "crashed")[-1]
    newest.write_bytes(newest.read_bytes() + newest.read_bytes()[:90])

    async with open_spool(tmp_path.parent / "crashed") as again:
        assert sorted(ordinals(again.found)) == [1, 2, 3, 4]
        assert (again.value("corrupt_records_total"), again.value("torn_tails_total")) == (0, 1)


async def test_what_kafka_has_not_refused_stays_unless_it_is_forced(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        request = ask(tmp_path)
        await kept.tend()
        assert not await kept.spool.set_aside(PARTITION, refused="")
        assert not await kept.spool.set_aside(OTHER, refused=TOO_LARGE)
        assert await kept.head() == [1, 2]

        request.unlink()
        ask(tmp_path, forced=True)
        await kept.tend()
        assert await kept.spool.set_aside(PARTITION, refused="")
        assert await kept.head() == [2]


async def test_a_request_that_was_taken_back_is_not_served(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1)
        request = ask(tmp_path)
        await kept.tend()
        request.unlink()

        assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)
        assert await kept.head() == [1]
        assert kept_aside(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"\xff", b'{"verb": "set_aside", "partition": 1, "expires_at": 1}', b"[" * 20_000),
        json.dumps(asked(partition=[["drx.prescriptions.v1"], 3])).encode(),
        json.dumps(asked("put_back", names=1)).encode(),
    ],
)
async def test_what_is_no_request_or_an_old_one_is_removed(tmp_path: Path, content: bytes) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1)
        garbage = tmp_path / "a.request"
        garbage.write_bytes(content)
        old = ask(tmp_path, name="b", expires_at=time.time() - 1)
        await kept.tend()

        assert files(tmp_path, "*.request") == [], (garbage, old)
        assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)
        assert kept.spool.code == ""


async def test_where_nothing_waits_there_is_nothing_to_set_aside_or_put_back(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        requests = ask(tmp_path), ask(tmp_path, "put_back", name="b"), ask(tmp_path, "put_back", name="c", names=["x"])
        await kept.tend()

        assert [outcome(each) for each in requests] == [{"outcome": "nothing_there", "names": []}] * 3


async def test_a_disk_that_does_not_take_the_copy_leaves_the_record_where_it_is(tmp_path: Path) -> None:
    disk = FaultDisk(tmp_path)
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1, 2)
        request = ask(tmp_path)
        await kept.tend()
        disk.sync_failures = 1

        assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)
        assert outcome(request)["outcome"] == "io_error"
        assert await kept.head() == [1, 2]
        assert kept_aside(tmp_path) == []


async def test_no_other_record_is_set_aside_for_one_that_was_found_damaged(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1, 2)
        request = ask(tmp_path)
        await kept.tend()
        (path,) = segments(tmp_path)
        raw = path.read_bytes()
        path.write_bytes(raw[:100] + bytes([raw[100] ^ 1]) + raw[101:])

        assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)
        assert await kept.head() == [2]
        assert request.exists()


async def test_what_cannot_be_opened_is_not_put_back(tmp_path: Path, keys: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1)
        await set_one_aside(kept, tmp_path)
    (keys / "current").rename(tmp_path / "vault")
    write_key(keys, secret=b"n" * 32)

    async with open_spool(tmp_path) as again:
        request = ask(tmp_path, "put_back")
        await again.tend()
        assert outcome(request) == {"outcome": "no_key", "names": []}
        assert len(kept_aside(tmp_path)) == 1

        (tmp_path / "vault").rename(keys / "previous")
        await again.tend()
        ask(tmp_path, "put_back")
        await again.tend()
        assert await again.head() == [1]


async def test_a_record_that_is_put_back_while_others_are_on_their_way_gets_in_no_ones_place(tmp_path: Path) -> None:
    """What is acknowledged meanwhile is counted from the head."""
    disk = FaultDisk(tmp_path)
    async with open_spool(tmp_path, disk=disk) as kept:
        await kept.put(1)
        await set_one_aside(kept, tmp_path)
        ask(tmp_path, "put_back")
        loop = asyncio.get_running_loop()
        calls: list[asyncio.Task[None]] = []

        def observe(operation: str) -> None:
            """Have one on its way while the record is written to a segment again."""
            if operation == "create .segment":
                disk.observe = lambda _operation: None
                loop.call_soon_threadsafe(lambda: calls.append(asyncio.ensure_future(kept.put(7))))

        disk.observe = observe
        await kept.tend()
        await asyncio.gather(*calls)
        await kept.tend()

        assert calls
        assert await kept.head() == [7, 1]


def printed(text: str) -> dict[str, Any]:
    """What a command has printed last; in a test the log is there too."""
    return dict(json.loads(text.splitlines()[-1]))


class TestCommands:
    @pytest.fixture(autouse=True)
    def _log(self) -> Iterator[None]:
        yield
        structlog.reset_defaults()

    def run(self, directory: Path, verb: str, *arguments: object) -> int:
        words = [verb, "--dir", str(directory), "--json", *map(str, arguments)]
        return int(spool.main(words, standalone_mode=False))

    def set_aside(self, directory: Path, *arguments: object, reason: str = "too large") -> int:
        place = ("--topic", PARTITION[0], "--partition", PARTITION[1], "--reason", reason)
        return self.run(directory, "set-aside", *place, *arguments)

    async def fill(self, directory: Path) -> None:
        async with open_spool(directory) as kept:
            await kept.put(1, 2)

    async def test_the_process_that_has_the_spool_serves_them(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with open_spool(tmp_path) as kept:
            await kept.put(1, 2)
            done = threading.Event()

            async def drive() -> None:
                """Do what the process does, which Kafka refuses a record."""
                while not done.is_set():
                    await kept.tend()
                    await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)
                    await asyncio.sleep(0.01)

            driving = asyncio.create_task(drive())
            try:
                code = await asyncio.to_thread(self.set_aside, tmp_path, "--patience", HANG_S)
                assert (code, await kept.head()) == (0, [2])
                said = capfd.readouterr()
                (name,) = printed(said.out)["names"]
                begun, ended = audit_lines(said.err)
                assert (begun["verb"], begun["reason"], begun["partition"]) == ("spool.set-aside", "too large", 3)
                assert (ended["outcome"], ended["names"]) == ("done", [name])

                code = await asyncio.to_thread(self.run, tmp_path, "put-back", name, "--reason", "limit raised")
                assert (code, await kept.head()) == (0, [2, 1])
            finally:
                done.set()
                await driving
        assert not {".request", ".taken", ".outcome", ".part"} & {path.suffix for path in files(tmp_path)}

    async def test_what_is_not_taken_up_in_time_is_taken_back(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with open_spool(tmp_path) as kept:
            await kept.put(1)

            assert await asyncio.to_thread(self.set_aside, tmp_path, "--patience", 0.01) == 1

            said = capfd.readouterr()
            assert printed(said.out) == {"ok": False, "outcome": "not_taken_up", "names": []}
            assert audit_lines(said.err)[-1]["outcome"] == "failed"
            await kept.tend()
            assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)

    async def test_what_is_interrupted_is_taken_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(spool_aside, "_wait", interrupt)
        async with open_spool(tmp_path) as kept:
            await kept.put(1)
            with pytest.raises(click.Abort):
                self.set_aside(tmp_path)

            await kept.tend()
            assert not await kept.spool.set_aside(PARTITION, refused=TOO_LARGE)

    async def test_only_the_command_takes_it_back(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """A process that removed it first would have it wait for the outcome of what was never taken up."""
        async with open_spool(tmp_path) as kept:
            await kept.put(1)
            asking = asyncio.create_task(asyncio.to_thread(self.set_aside, tmp_path, "--patience", 0.05))

            while not asking.done():
                await kept.tend()
                await asyncio.sleep(0.01)

        assert printed(capfd.readouterr().out)["outcome"] == "not_taken_up"

    def test_without_a_process_it_takes_force(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        asyncio.run(self.fill(tmp_path))
        with pytest.raises(ConfigError, match="no process has this spool open"):
            self.set_aside(tmp_path)
        assert kept_aside(tmp_path) == []

        assert self.set_aside(tmp_path, "--force") == 0
        (name,) = printed(capfd.readouterr().out)["names"]
        self.run(tmp_path, "status")
        document = printed(capfd.readouterr().out)
        (told,), (key,) = document["set_aside"], document["keys"]
        assert (key["id"], key["records"]) == (told["key"], 3)
        assert (told["name"], told["topic"], told["reason"], told["code"]) == (name, PARTITION[0], "too large", "")
        assert [state.waiting for state in survey(tmp_path, {}, read=len)] == [2]

        assert self.run(tmp_path, "put-back", "--reason", "again") == 0
        assert [state.waiting for state in survey(tmp_path, {}, read=len)] == [2, 1]
        assert self.run(tmp_path, "put-back", "--reason", "again") == 1

    @pytest.mark.parametrize("words", [("--partition", 2**31), ("--patience", "inf")])
    def test_a_number_that_no_request_can_hold_is_refused(self, tmp_path: Path, words: tuple[str, object]) -> None:
        asyncio.run(self.fill(tmp_path))

        with pytest.raises(click.BadParameter, match="not in the range"):
            self.set_aside(tmp_path, "--force", *words)
        assert kept_aside(tmp_path) == []

    @pytest.mark.parametrize("verb", ["set-aside", "put-back"])
    def test_a_reason_is_required(self, tmp_path: Path, verb: str) -> None:
        asyncio.run(self.fill(tmp_path))
        before = files(tmp_path)

        words = {
            "set-aside": ("--topic", PARTITION[0], "--partition", PARTITION[1], "--reason", " ", "--force"),
            "put-back": (),
        }
        with pytest.raises(ConfigError, match="--reason"):
            self.run(tmp_path, verb, *words[verb])
        assert files(tmp_path) == before

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for another user")
    def test_what_root_asks_for_is_readable_for_the_process(self, tmp_path: Path) -> None:
        os.chown(tmp_path, 65_534, 65_534)
        _write(tmp_path / "a.request", b"{}")

        state = (tmp_path / "a.request").stat()
        assert (state.st_uid, state.st_mode & 0o777) == (65_534, 0o600)
