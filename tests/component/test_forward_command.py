"""`drx-consumer forward try`: the request for a receiver, shown before anything is sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from consumers.cli import cli
from tests.unit.profile_documents import SAMPLES

FILL = SAMPLES / "native" / "24_fill_dispensed.json"
SHAPE = {"METHOD": "PUT", "PATH": "/orders/{data.prescription_id}", "BODY": "{state: {fill: data.fill_status}}"}


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"URL": "https://ehr.example/secret", "SECRETS_DIR": "/nowhere", **SHAPE}.items():
        monkeypatch.setenv(f"CONSUMER_FORWARD__{name}", value)


def tried(capfd: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = cli.main(["forward", "try", str(path), "--json", *arguments], standalone_mode=False)
    out, err = capfd.readouterr()
    return code, json.loads(out), err


def test_what_would_be_sent_is_shown_without_its_values(capfd: pytest.CaptureFixture[str]) -> None:
    assert tried(capfd, FILL) == (
        0,
        {
            "sent": True,
            "method": "PUT",
            "server": "https://ehr.example",
            "path": "/orders/{data.prescription_id}",
            "body": {"state": {"fill": "***"}},
        },
        "",
    )


def test_values_are_shown_when_asked_for_and_that_is_audited(capfd: pytest.CaptureFixture[str]) -> None:
    code, shown, err = tried(capfd, FILL, "--show-phi")

    assert (code, shown["body"]) == (0, {"state": {"fill": "dispensed"}})
    assert shown["path"] == f"/orders/{json.loads(FILL.read_bytes())['data']['prescription_id']}"
    assert [json.loads(line)["outcome"] for line in err.splitlines()] == ["begun", "done"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("BODY", "data.note", "body_failed"),
        ("PATH", "/{data.fill_number == `0`}", "path_failed"),
        ("TYPES", "renewal.*", "filtered"),
        ("WHEN", "`false`", "filtered"),
    ],
)
def test_what_would_not_be_sent_says_why(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, value: str, code: str
) -> None:
    monkeypatch.setenv(f"CONSUMER_FORWARD__{name}", value)

    assert tried(capfd, FILL) == (1, {"sent": False, "code": code}, "")
