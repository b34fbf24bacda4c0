"""Audit lines: before and after the action, in both outputs; without the first line the action is not done."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.errors import ConfigError, DecodeError
from bridge.runtime.audit import VARIABLE, audited, operator_name


def lines(text: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in text.splitlines()]


def test_who_what_why_and_when_are_said_before_and_after(capfd: pytest.CaptureFixture[str]) -> None:
    with audited("spool.drain", actor="ann", reason="node 7 is gone", directory="/spool") as ended:
        (begun,) = lines(capfd.readouterr().err)
        ended["drained"] = 3

    (done,) = lines(capfd.readouterr().err)
    assert begun.pop("timestamp") <= done.pop("timestamp")
    assert begun | {"outcome": "done", "drained": 3} == done
    assert begun["event"] == "audit"
    assert {name: begun[name] for name in ("verb", "actor", "reason", "directory", "outcome")} == {
        "verb": "spool.drain",
        "actor": "ann",
        "reason": "node 7 is gone",
        "directory": "/spool",
        "outcome": "begun",
    }
    assert begun["user"] == operator_name()
    assert begun["host"]


@pytest.mark.parametrize(
    ("raised", "outcome", "code"),
    [
        (ConfigError("Marisol"), "failed", "config"),
        (DecodeError("truncated"), "failed", "truncated"),
        (KeyError("Marisol"), "failed", "KeyError"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_a_failure_is_said_by_its_code_and_never_by_its_text(
    raised: BaseException, outcome: str, code: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(raised)), audited("forget"):
        raise raised

    text = capfd.readouterr().err
    assert (lines(text)[-1]["outcome"], lines(text)[-1].get("code")) == (outcome, code)
    assert "Marisol" not in text


def test_a_dry_run_changes_nothing_and_has_no_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with audited("forget", dry_run=True):
        pass

    assert capfd.readouterr().err == ""


def test_lines_are_appended_to_a_file_besides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "audit"
    monkeypatch.setenv(VARIABLE, str(path))
    for verb in ("first", "second"):
        with audited(verb):
            pass

    assert path.read_text() == capfd.readouterr().err
    assert [each["verb"] for each in lines(path.read_text())] == ["first", "first", "second", "second"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_done_when_the_first_line_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = []
    for place in ("/dev/full", str(tmp_path / "missing" / "audit")):
        monkeypatch.setenv(VARIABLE, place)
        with pytest.raises(ConfigError, match="nothing was done"), audited("forget"):
            done.append(place)

    assert done == []
