"""A source's secret files: swapped, half written, broken, missing."""

import asyncio
import base64
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.proof.scheme import HmacKey, KeySlot
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.proof.secrets import load, slots_of
from bridge.runtime import secret_files
from bridge.runtime.lifecycle import run_workers
from bridge.runtime.secret_files import FILE_MAX_BYTES, SecretsError, SlotDirectory
from bridge.runtime.signing_secret import Slot
from tests.kafka import HANG_S

SCHEME = StandardWebhooks()


def whsec(number: int) -> str:
    """Build the text of a secret that begins with `number`."""
    return "whsec_" + base64.b64encode(bytes(range(number, number + 32))).decode()


def secret_of(slot: KeySlot) -> bytes:
    assert isinstance(slot.key, HmacKey)
    return slot.key.secret


class Watched:
    """A directory with slot files, its watcher, and the watcher's reports."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: list[str] = []
        self.directory = SlotDirectory(path, slots_of(SCHEME), source="drx", observe=self.outcomes.append)

    def after(self, periods: int) -> list[tuple[str, int]]:
        """Let `periods` pass; return the slots in force, each with the number its key is made of."""
        for _ in range(periods):
            self.directory.poll()
        return [(slot.name, secret_of(slot)[0]) for slot in self.directory.keys]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    (tmp_path / "current").write_text(whsec(1))
    return Watched(tmp_path)


def refusal_of(path: Path) -> SecretsError:
    with pytest.raises(SecretsError) as caught:
        load(path, SCHEME)
    assert isinstance(caught.value, ConfigError)
    assert str(path) in str(caught.value)
    return caught.value


def test_each_file_is_a_slot_the_current_one_first(tmp_path: Path) -> None:
    for number, name in enumerate(["a-third", "previous", "current"]):
        (tmp_path / name).write_text(whsec(number) + "\n")

    assert [slot.name for slot in load(tmp_path, SCHEME)] == ["current", "previous", "a-third"]


def test_a_slot_has_a_window(tmp_path: Path) -> None:
    lines = [whsec(1), "not_before = 2026-01-31T00:00:00Z", "", "accept_until=2026-02-01t01:00:00.5+01:00", ""]
    (tmp_path / "current").write_text("\r\n".join(lines))

    [slot] = load(tmp_path, SCHEME)

    assert (slot.not_before, slot.accept_until) == (1_769_817_600, 1_769_904_000.5)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "secret_malformed"),
        (b"\n" + whsec(1).encode(), "secret_malformed"),
        (b"\xef\xbb\xbf" + whsec(1).encode(), "secret_malformed"),
        (b"\xff\x00" * 50, "secret_malformed"),
        (whsec(1).encode() + b"\n" + b" " * FILE_MAX_BYTES, "secret_too_long"),
        (whsec(1).encode() + b"\n" + whsec(2).encode(), "secret_line"),
        (whsec(1).encode() + b"\nexpires = 2026-01-31T00:00:00Z", "secret_line"),
        (whsec(1).encode() + b"\nnot_before = 2026-01-31T00:00:00Z" * 2, "secret_line"),
        (whsec(1).encode() + b"\nnot_before = 2026-01-31", "secret_window"),
        (whsec(1).encode() + b"\nnot_before = 2026-13-31T00:00:00Z", "secret_window"),
        (
            whsec(1).encode() + b"\nnot_before = 2026-01-31T00:00:01Z\naccept_until = 2026-01-31T00:00:00Z",
            "secret_window",
        ),
    ],
)
def test_a_bad_file_is_named_and_never_shown(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "current").write_bytes(content)

    refusal = refusal_of(tmp_path)

    assert refusal.code == code
    assert str(tmp_path / "current") in str(refusal)
    assert refusal.__cause__ is None
    assert not [word for word in ("AQID", "AgME", "expires", "-13-") if word in str(refusal)]


def test_a_file_that_is_no_slot_by_its_name_is_refused(tmp_path: Path) -> None:
    """An editor's backup would keep an old secret in force."""
    (tmp_path / "current").write_text(whsec(1))
    (tmp_path / "current~").write_text(whsec(2))

    assert refusal_of(tmp_path).code == "secret_name"


@pytest.mark.parametrize("name", [".", "none", "file"])
def test_without_any_secret_nothing_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").touch()
    empty = tmp_path / "empty"
    empty.mkdir()

    path = empty if name == "." else tmp_path / "sub" / name

    assert refusal_of(path).code == ("secrets_empty" if name == "." else "secrets_unreadable")


@pytest.mark.parametrize("damage", ["empty file", "garbage", "no file", "no directory", "bad window"])
def test_the_last_good_set_is_kept_until_there_is_another(watched: Watched, damage: str) -> None:
    path, current = watched.path, watched.path / "current"
    match damage:
        case "empty file":
            current.write_text("")
        case "garbage":
            current.write_bytes(b"\x00\xff")
        case "no file":
            current.unlink()
        case "no directory":
            path.rename(path.with_name("aside"))
        case _:
            current.write_text(whsec(2) + "\naccept_until = soon")

    assert (watched.after(3), set(watched.outcomes)) == ([("current", 1)], {"failed"})

    path.mkdir(exist_ok=True)
    current.write_text(whsec(3))

    assert (watched.after(2), watched.outcomes[-1]) == ([("current", 3)], "reloaded")


def test_a_pipe_among_the_slots_is_a_failure_and_holds_up_no_reload(watched: Watched) -> None:
    """Opening one waits for a writer, so that no later change would be seen."""
    os.mkfifo(watched.path / "next")

    assert (watched.after(2), watched.outcomes) == ([("current", 1)], ["failed", "failed"])
    assert refusal_of(watched.path).code == "secrets_unreadable"

    (watched.path / "next").unlink()
    (watched.path / "current").write_text(whsec(3))

    assert watched.after(2) == [("current", 3)]


def test_a_file_amid_being_written_is_no_failure(watched: Watched) -> None:
    """It would raise an alarm at each rotation."""
    (watched.path / "next").write_text("whsec_")
    watched.after(1)
    (watched.path / "next").write_text(whsec(2))

    assert (watched.after(2), watched.outcomes) == ([("current", 1), ("next", 2)], ["reloaded"])


def kubernetes_writes(path: Path, revision: str, **slots: str) -> None:
    """Write a volume's content as the kubelet does: a new directory, then one atomic rename of `..data`."""
    (path / revision).mkdir()
    for name, text in slots.items():
        (path / revision / name).write_text(text)
    (path / "..data_tmp").symlink_to(revision)
    os.replace(path / "..data_tmp", path / "..data")  # noqa: PTH105 - as the kubelet does
    for name in slots:
        if not (path / name).is_symlink():
            (path / name).symlink_to(Path("..data") / name)


def test_a_kubernetes_volume_is_followed_through_its_links(tmp_path: Path) -> None:
    kubernetes_writes(tmp_path, "..2026_01", current=whsec(1), previous=whsec(0))
    watched = Watched(tmp_path)
    assert watched.after(0) == [("current", 1), ("previous", 0)]

    kubernetes_writes(tmp_path, "..2026_02", current=whsec(2), previous=whsec(1))

    assert (watched.after(2), watched.outcomes) == ([("current", 2), ("previous", 1)], ["reloaded"])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_files, "POLL_PERIOD_S", 0.001)


@pytest.mark.usefixtures("quick")
async def test_the_worker_polls_while_a_name_server_has_every_thread_of_the_executor(tmp_path: Path) -> None:
    (tmp_path / "current").write_text(whsec(1))
    stop, answered = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    resolving = loop.run_in_executor(None, answered.wait)

    def reloaded(_outcome: str) -> None:
        loop.call_soon_threadsafe(stop.set)

    directory = SlotDirectory(tmp_path, slots_of(SCHEME), source="drx", observe=reloaded)
    (tmp_path / "current").write_text(whsec(2))
    try:
        async with asyncio.timeout(HANG_S):
            await directory.run(stop)
    finally:
        answered.set()
        await resolving

    assert secret_of(directory.keys[0])[0] == 2


@pytest.mark.usefixtures("quick")
async def test_a_reading_that_hangs_holds_up_no_stop(tmp_path: Path) -> None:
    """It is done in a thread of its own, which nothing waits for."""
    (tmp_path / "current").write_text(whsec(1))
    stop, answered = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang(_slots: object) -> None:
        loop.call_soon_threadsafe(stop.set)
        answered.wait()

    directory = SlotDirectory(tmp_path, slots_of(SCHEME), source="drx", observe=lambda _: None, check=hang)
    (tmp_path / "current").write_text(whsec(2))
    async with asyncio.timeout(HANG_S):
        await run_workers([directory], stop=stop, drain_timeout_s=0)
    answered.set()


def test_a_slot_counts_from_its_first_to_its_last_second() -> None:
    slot = Slot("current", b"key", not_before=10.0, accept_until=20.0)

    assert [slot.counts_at(now) for now in (9.9, 10.0, 20.0, 20.1)] == [False, True, True, False]


def test_a_key_is_never_shown() -> None:
    assert "hunter2" not in repr(Slot("current", "hunter2"))
