import json

import pytest

from bridge.commands.config import config


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRIDGE_CONFIG", raising=False)
    monkeypatch.setenv("BRIDGE_KAFKA__PARTITIONS", "6")
    monkeypatch.setenv("BRIDGE_REGISTRY__URL", "https://user:hunter2@registry.test")
    monkeypatch.setenv("BRIDGE_SOURCES__drx__PROFILE", "drx_standard")
    monkeypatch.setenv("BRIDGE_SOURCES__drx__ENVIRONMENT", "sandbox")
    monkeypatch.setenv("BRIDGE_SOURCES__drx__SECRETS_DIR", "/secrets/drx")


def test_the_effective_values_are_one_document_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    code = config.main(["--json"], standalone_mode=False)

    output = capsys.readouterr().out
    document = json.loads(output)
    assert code == 0
    assert document["kafka"]["partitions"] == 6
    assert document["sources"]["drx"]["secrets_dir"] == "/secrets/drx"
    assert document["registry"]["url"] == "https://***@registry.test"
    assert "hunter2" not in output


def test_each_setting_is_one_line_under_the_name_of_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    config.main([], standalone_mode=False)

    output = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1] for line in output.splitlines() if line.strip()}
    assert rows["BRIDGE_KAFKA__PARTITIONS"] == "6"
    assert rows["BRIDGE_SOURCES__DRX__PROFILE"] == "drx_standard"
    assert rows["BRIDGE_SOURCES__DRX__TOLERANCE_S"] == "300"
    assert "hunter2" not in output
