"""Ids are hashed in every log line, and libraries log only constants."""

import json
import logging
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from bridge.commands.hash_id import hash_id as command
from bridge.errors import ConfigError
from bridge.runtime.log_ids import current_id_key, read_id_keys
from bridge.runtime.logging import LIBRARY_EVERY_S, LibraryHandler, configure_logging, id_hash, log, output
from tests.logs import capture_logs

KEY, FORMER = "a key for tests, of 32 characters or more", "another key for tests, used some time ago"
# BLAKE2s of ID in 12 bytes, keyed with the SHA-256 of KEY.
HASH = "6d05766760212f1ec92af287"
ID, PRESCRIPTION = "evt_1795545852683028727", "rx_8842"
pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    where = tmp_path / "log-ids"
    where.mkdir()
    (where / "current").write_text(f"{KEY}\n")
    return where


def run(*arguments: str, given: str | bytes = "") -> Result:
    return CliRunner().invoke(command, arguments, input=given, standalone_mode=False)


@pytest.mark.parametrize("terminal", [False, True], ids=["json", "console"])
def test_every_line_has_hashes_in_the_place_of_ids(
    directory: Path,
    terminal: bool,  # noqa: FBT001 - of a matrix
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.isatty", lambda _: terminal)
    configure_logging(level="info", id_key=current_id_key(directory))
    log.info("delivery.accepted", event_id=ID, record_key=f"{PRESCRIPTION} {ID}")
    log.error("worker.failed", event_id="", record_key="")
    assert output.flush()
    out = capfdbinary.readouterr().out.decode()
    hashed, key = run(ID, PRESCRIPTION, "--key-dir", str(directory)).output.split()

    assert ID not in out
    assert PRESCRIPTION not in out
    assert hashed in out
    if not terminal:
        first, second = map(orjson.loads, out.splitlines())
        assert (first["event_id"], first["record_key"]) == (hashed, f"{key} {hashed}")
        assert (second["event_id"], second["record_key"]) == ("", "")


def test_an_id_has_one_hash_wherever_the_key_is_and_another_one_elsewhere(directory: Path) -> None:
    assert id_hash(ID, current_id_key(directory)) == HASH
    assert len({HASH, *(id_hash(ID, current_id_key(None)) for _ in range(2))}) == 3


def test_after_a_rotation_both_hashes_are_said(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_LOG__ID_KEY_DIR", str(directory))
    before = run(ID).output
    (directory / "current").rename(directory / "2026-01")
    (directory / "current").write_text(FORMER)
    found = [json.loads(line) for line in run(ID, "--json").output.splitlines()]

    assert [each["key"] for each in found] == ["current", "2026-01"]
    assert [found[1]["hash"], found[0]["hash"] != HASH] == [before.strip(), True]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("current", "too short", "32 characters"),
        ("current", f"{KEY}\naccept_until = 2026-01-31T00:00:00Z", "no dates"),
        ("current", "", "32 characters"),
        ("former", KEY, "no file `current`"),
    ],
)
def test_what_is_no_key_is_named_and_not_shown(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(ConfigError, match=says) as caught:
        read_id_keys(tmp_path)

    assert str(tmp_path) in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_command_shows_no_id_either(capsys: pytest.CaptureFixture[str]) -> None:
    log.error("worker.anything", event_id=ID, record_key=PRESCRIPTION)

    said = capsys.readouterr().err
    assert "worker.anything" in said
    assert ID not in said
    assert PRESCRIPTION not in said


def test_one_place_is_logged_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that cannot log in says so a hundred times a second."""
    times = [0, 0.1, 0.2, LIBRARY_EVERY_S, 5 * LIBRARY_EVERY_S]
    logger = logging.getLogger("aiokafka.test")
    monkeypatch.setattr(logger, "handlers", [LibraryHandler(now=iter(times).__next__)])
    monkeypatch.setattr(logger, "propagate", False)
    with capture_logs() as lines:
        for _ in times:
            logger.error("Unable connect to node with id %s: %s", 1, "Mary Smith")

    assert len(lines) == 3
    assert "Mary Smith" not in str(lines)
