import json
from pathlib import Path

import pytest

from bridge.commands.config import config
from tests.builders import SECRET


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "current").write_text(SECRET)
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)
    monkeypatch.setenv("BRIDGE_KAFKA__PARTITIONS", "6")
    monkeypatch.setenv("BRIDGE_REGISTRY__URL", "https://user:hunter2@registry.test")
    monkeypatch.setenv("BRIDGE_SOURCES__drx__PROFILE", "drx_standard")
    monkeypatch.setenv("BRIDGE_SOURCES__drx__ENVIRONMENT", "sandbox")
    monkeypatch.setenv("BRIDGE_SOURCES__drx__SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_the_effective_values_are_one_document_without_secrets(
    secrets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.main(["--json"], standalone_mode=False) == 0

    output = capsys.readouterr().out
    document = json.loads(output)
    assert (document["kafka"]["partitions"], document["sources"]["drx"]["secrets_dir"]) == (6, str(secrets))
    assert document["registry"]["url"] == "https://***@registry.test"
    assert "hunter2" not in output


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("SOURCES__drx__PROFILE", "drx_standart", "no profile is named 'drx_standart'"),
        ("SOURCES__drx__SCHEME", "hmac", "no scheme has this name"),
        ("SOURCES__drx__SCHEME", "url_token", "accept it: BRIDGE_SOURCES__DRX__ACCEPT="),
        ("SOURCES__drx__SECRETS_DIR", "/absent", "cannot read this directory"),
        ("LOG__ID_KEY_DIR", "/absent", "cannot read this directory"),
        ("REGISTRY__URL", "registry:8081", "is not an http:// or https:// URL"),
        ("REGISTRY__USERNAME_FILE", "/absent", "set both or neither"),
    ],
)
def test_what_serve_would_refuse_is_shown_and_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"BRIDGE_{setting}", value)

    assert config.main(["--json"], standalone_mode=False) == 2

    shown = capsys.readouterr()
    assert said in shown.err
    assert json.loads(shown.out)["kafka"]["partitions"] == 6


def test_a_check_prints_all_that_is_wrong_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.main(["--check"], standalone_mode=False) == 0
    monkeypatch.setenv("BRIDGE_SOURCES__drx__SECRETS_DIR", "/absent")
    monkeypatch.setenv("BRIDGE_HTTP__TRUSTED_PROXIES", "0.0.0.0/0")

    assert config.main(["--check"], standalone_mode=False) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert ["/absent" in line for line in shown.err.splitlines()] == [False, True]
