"""`drx-bridge mapping check` is the gate of a mapping in the CI of a site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.config import config
from bridge.commands.mapping import mapping
from bridge.ingress.profiles.mapped import compile_mapping
from tests.builders import SECRET
from tests.unit.mapping_files import ACCOUNT, ACME, BODY


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.toml"
    path.write_text(ACME)
    return path


def body(tmp_path: Path, name: str, **changes: Any) -> str:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(BODY | changes))
    return str(path)


def run(*arguments: str) -> int:
    code: int = mapping.main(["check", *arguments], standalone_mode=False)
    return code


def test_bodies_that_become_events_are_shown_with_health_information_masked(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(str(file), body(tmp_path, "one", note="CANARY"), "--json")

    (line,) = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    (event,) = document["events"]
    assert code == 0
    assert (event["type"], event["key"]) == ("fulfillment.status_changed", "acme:7")
    assert event["value"]["queue_id"] == event["value"]["extensions"] == "***"
    assert event["value"]["account_id"] == "acct_check"
    assert document["flags"] == ["time_of_receipt"]
    assert "CANARY" not in line


def test_a_body_that_would_be_parked_fails_the_check(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parked = (body(tmp_path, "two", rx={"id": "CANARY 7"}), body(tmp_path, "three", kind="OTHER"))
    code = run(str(file), body(tmp_path, "one"), *parked, "--account-id", "a")

    output = capsys.readouterr().out
    assert code == 1
    assert "parked: unusable bad_key /rx/id" in output
    assert "parked: unknown_type no [[event]] has a `when` that holds" in output
    assert "CANARY" not in output
    digest = compile_mapping(ACME.encode(), "", ACCOUNT).sha256
    assert f": 1 event, sha256 {digest}" in output.replace("\n", "")


def test_the_configuration_shows_the_hash_of_each_mapping(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    source = {
        "PROFILE": "mapped",
        "ENVIRONMENT": "sandbox",
        "SECRETS_DIR": str(secrets),
        "OPTIONS__MAPPING": str(file),
        "OPTIONS__ACCOUNT_ID": "acct_1",
    }
    for name, value in source.items():
        monkeypatch.setenv(f"BRIDGE_SOURCES__ACME__{name}", value)
    digest = compile_mapping(ACME.encode(), "", ACCOUNT).sha256

    config.main(["--json"], standalone_mode=False)
    config.main([], standalone_mode=False)

    document, *table = capsys.readouterr().out.splitlines()
    assert json.loads(document)["sources"]["acme"]["mapping_sha256"] == digest
    assert any("BRIDGE_SOURCES__ACME__OPTIONS__MAPPING" in line and digest in line for line in table)
