"""`drx-bridge map` says of a body what the ingress would make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.map import map_body
from bridge.errors import ConfigError
from tests.audit_lines import acts
from tests.builders import SAMPLES, a_body
from tests.unit.mapping_files import ACME, BODY


def run(*arguments: str | Path) -> int:
    code: int = map_body.main([str(each) for each in arguments], standalone_mode=False)
    return code


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Run it with `--json` on one body."""
    run(*arguments, "--json")
    (line,) = capsys.readouterr().out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body.json"
    path.write_bytes(a_body(data_note="CANARY"))
    return path


def test_an_event_has_its_place_in_kafka_and_health_information_is_masked(
    body: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = outcome(capsys, body)

    (event,) = document["events"]
    assert (event["id"], event["type"]) == ("evt_1", "prescription.processed")
    assert (event["topic"], event["key"], event["partition"]) == ("drx.prescriptions.v1", "rx_1", 0)
    assert event["value"]["prescription_id"] == event["value"]["extensions"] == "***"
    assert document["extensions"] == 1
    assert "CANARY" not in json.dumps(document)


def test_health_information_is_shown_to_who_asks_with_an_audit_line(
    body: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(body, "--show-phi") == 0

    out, err = capfd.readouterr()
    assert "CANARY" in out
    assert acts(err) == [("map", "begun"), ("map", "done")]
    assert "CANARY" not in err


@pytest.mark.parametrize(
    ("changes", "parked"),
    [
        ({"type": "is eaten"}, ("unknown_type", "", "/type")),
        ({"data_network_status": "verify"}, ("unusable", "wrong_type", "/data/network_status")),
        ({"timestamp": "CANARY"}, ("unusable", "bad_time", "/timestamp")),
        ({"environment": None}, ("environment_mismatch", "", "/environment")),
        ({"environment": ["CANARY"]}, ("environment_mismatch", "", "/environment")),
    ],
)
def test_what_would_be_parked_says_why_and_where_and_never_the_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], parked: tuple[str, str, str]
) -> None:
    path = tmp_path / "body.json"
    path.write_bytes(a_body(**changes))

    found = outcome(capsys, path)["parked"]

    assert (found["reason"], found["detail"], found["field"]) == parked
    assert (found["topic"], found["key"]) == ("drx.unrecognized.v1", "rx_1")
    assert run(path) == 1
    out = capsys.readouterr().out
    assert " ".join(filter(None, parked)) in out
    assert "CANARY" not in out


def test_a_configured_source_has_its_profile_and_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme.toml").write_text(ACME)
    (tmp_path / "state.json").write_text(json.dumps(BODY))
    for name, value in {
        "PROFILE": "mapped",
        "ENVIRONMENT": "sandbox",
        "OPTIONS__MAPPING": str(tmp_path / "acme.toml"),
        "OPTIONS__ACCOUNT_ID": "acct_1",
    }.items():
        monkeypatch.setenv(f"BRIDGE_SOURCES__ACME__{name}", value)

    (event,) = outcome(capsys, tmp_path / "state.json", "--source", "acme")["events"]

    assert event["key"] == "acme:7"
    with pytest.raises(ConfigError, match=r"no source is named 'acmee'"):
        run(tmp_path / "state.json", "--source", "acmee")


def test_a_profile_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    sample = SAMPLES / "profiles/p11_dosespot_prescription_result.json"
    arguments = ("--profile", "dosespot_push", "--option", "account_id=acct_9", "--option", "zone=America/Chicago")

    document = outcome(capsys, sample, *arguments)

    assert document["events"][0]["key"].startswith("ds:")
    with pytest.raises(ConfigError, match=r"--profile: no profile is named 'drx_standart'"):
        run(sample, "--profile", "drx_standart")
