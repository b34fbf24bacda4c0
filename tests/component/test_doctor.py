"""What the doctor finds without a broker; each finding says what to do."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.doctor import doctor
from bridge.commands.doctor_checks import check_windows
from bridge.dev.ports import free_port
from bridge.runtime.findings import Finding
from bridge.settings import Settings, Source
from bridge.start_checks import check_sources, check_start

SECRET = "whsec_ZHJ4LWJyaWRnZS10ZXN0LWtleS1ub3Qtc2VjcmV0ISE="
NOW = datetime(2026, 9, 14, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own settings out."""
    for name in list(os.environ):
        if name.startswith("BRIDGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("BRIDGE_SPOOL__DIR", str(tmp_path / "spool"))


def a_source(secrets_dir: Path, **changes: Any) -> Source:
    return Source(**{"profile": "drx_standard", "environment": "sandbox", "secrets_dir": secrets_dir} | changes)


def a_secret(directory: Path, name: str = "current", *lines: str) -> None:
    (directory / name).write_text("\n".join([SECRET, *lines]) + "\n")


def found(source: Source) -> list[Finding]:
    settings = Settings(sources={"drx": source})
    return [*check_sources(settings), *check_windows(settings, now=NOW)]


def instant(after: timedelta) -> str:
    return (NOW + after).isoformat()


@pytest.mark.parametrize(
    ("servers", "accept", "verdicts"),
    [
        ("127.0.0.1:9092,localhost:9093,[::1]:9094", "", []),
        ("127.0.0.1:9092,kafka:9092", "", ["failed", "failed"]),
        ("kafka:9092", "plaintext_kafka", ["warning", "failed"]),
    ],
)
def test_each_risk_is_found_unless_the_brokers_are_on_this_machine(
    servers: str, accept: str, verdicts: list[str]
) -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": servers}, "accept": accept})

    risks = [each for each in check_start(settings) if each.check == "risks"]

    assert [each.verdict for each in risks] == verdicts
    for name, each in zip(("plaintext_kafka", "generated_spool_key"), risks, strict=False):
        assert name in each.sentence


@pytest.mark.parametrize(
    ("lines", "verdict", "words"),
    [
        ([], "ok", "current (hmac, no end)"),
        ([f"accept_until = {instant(timedelta(days=-1))}"], "failed", "ended 2026-09-13"),
        ([f"not_before = {instant(timedelta(days=1))}"], "failed", "from 2026-09-15"),
        ([f"accept_until = {instant(timedelta(days=3))}"], "warning", "until 2026-09-17"),
        ([f"accept_until = {instant(timedelta(days=90))}"], "ok", "until 2026-12-13"),
    ],
)
def test_when_a_secret_counts_is_said(tmp_path: Path, lines: list[str], verdict: str, words: str) -> None:
    a_secret(tmp_path, "current", *lines)

    finding = found(a_source(tmp_path))[1]

    assert finding.verdict == verdict
    assert words in finding.text
    assert bool(finding.advice) == (verdict != "ok")


def test_all_that_a_start_would_refuse_is_found_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRIDGE_HTTP__TRUSTED_PROXIES", "0.0.0.0/0")
    monkeypatch.setenv("BRIDGE_KAFKA__ROUTES", '{"*": "two words"}')
    monkeypatch.setenv("BRIDGE_KAFKA__BOOTSTRAP_SERVERS", "host:port")
    monkeypatch.setenv("BRIDGE_REGISTRY__URL", "registry")

    code = doctor.main(["--json"], standalone_mode=False)

    checks = json.loads(capsys.readouterr().out)["checks"]
    failed = [each["check"] for each in checks if each["verdict"] == "failed"]
    assert code == 1
    assert failed == ["kafka", "risks", "risks", "http", "routes", "registry", "sources"]


def test_every_check_is_one_line_and_what_failed_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.main([], standalone_mode=False)

    lines = capsys.readouterr().out.splitlines()
    assert code == 1
    checks = ["config", "log", "sources", "kafka", "registry", "spool", "spool", "spool"]
    assert [line.split()[1] for line in lines] == checks
    assert all(("→" in line) == (not line.startswith("✓")) for line in lines)
