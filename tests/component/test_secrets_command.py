"""`drx-bridge secrets` and `verify`: they write files that the bridge accepts, and never show a secret."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.commands.secrets import secrets
from bridge.commands.verify import verify
from bridge.errors import ConfigError
from bridge.proof.scheme import HmacKey
from bridge.proof.secrets import load
from bridge.settings import load_settings
from bridge.sources import scheme_of
from tests.builders import SECRET

SCHEMES: dict[str, dict[str, str]] = {
    "standard_webhooks": {},
    "body_hmac": {"HEADER": "X-S"},
    "body_hmac+basic": {"HEADER": "X-S", "KEY_ENCODING": "hex"},
    "shopify": {"KEY_ENCODING": "base64"},
    "secret_header": {},
    "basic": {},
    "url_token": {},
    "github+secret_header+cidr": {"NETWORKS": "192.0.2.0/24"},
}
pytestmark = pytest.mark.usefixtures("clean")


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Configure the source `drx` with an empty directory for secrets."""
    where = tmp_path / "secrets"
    where.mkdir()
    for name, value in {"PROFILE": "drx_standard", "ENVIRONMENT": "sandbox", "SECRETS_DIR": str(where)}.items():
        monkeypatch.setenv(f"BRIDGE_SOURCES__DRX__{name}", value)
    return where


def configure(monkeypatch: pytest.MonkeyPatch, scheme: str, parameters: dict[str, str]) -> None:
    monkeypatch.setenv("BRIDGE_SOURCES__DRX__SCHEME", scheme)
    for name, value in parameters.items():
        monkeypatch.setenv(f"BRIDGE_SOURCES__DRX__SCHEME_{name}", value)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(secrets, arguments, standalone_mode=False)


def refused(*arguments: str) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, ConfigError), result.exception
    return str(result.exception)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_new_secret_is_one_that_the_bridge_takes_and_nobody_sees(
    monkeypatch: pytest.MonkeyPatch, directory: Path, scheme: str, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(monkeypatch, scheme, SCHEMES[scheme])

    result = run("new", "drx", "--accept-until", "2030-01-01T00:00:00Z")

    assert (result.exception, result.return_value) == (None, 0)
    text = (directory / "current").read_text()
    (slot,) = load(directory, scheme_of("drx", load_settings().sources["drx"]))
    assert (slot.name, slot.accept_until) == ("current", 1_893_456_000)
    assert (directory / "current").stat().st_mode & 0o777 == 0o600
    shown = result.output + "".join(capfd.readouterr())
    for line in text.splitlines()[:-1]:
        assert line.rpartition(" ")[2] not in shown


def test_a_slot_that_exists_is_not_overwritten(directory: Path) -> None:
    (directory / "current").write_text(SECRET)

    assert "already exists" in refused("new", "drx")
    assert (directory / "current").read_text() == SECRET


def test_a_rotation_keeps_the_former_secret_for_a_while(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "current").write_text(f"{SECRET}\naccept_until = 2026-12-31T00:00:00Z\n")
    audit = directory.parent / "audit"
    monkeypatch.setenv("DRX_AUDIT_FILE", str(audit))

    assert run("new", "drx", "--rotate-h", "24", "--reason", "yearly").exception is None
    current, previous = load(directory, scheme_of("drx", load_settings().sources["drx"]))
    assert (current.name, previous.name) == ("current", "previous")
    assert isinstance(previous.key, HmacKey)
    assert (directory / "previous").read_text().splitlines()[0] == SECRET
    assert current.key != previous.key
    assert [path.name for path in directory.iterdir() if path.name.startswith(".")] == []
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["verb"], line["outcome"], line["source"]) for line in lines] == [
        ("secrets.new", "begun", "drx"),
        ("secrets.new", "done", "drx"),
    ]
    assert SECRET not in audit.read_text()


def test_a_second_rotation_waits_until_the_former_secret_has_ended(directory: Path) -> None:
    """The sender may still sign with the secret in `previous`, until its `accept_until`."""
    (directory / "current").write_text(SECRET)
    run("new", "drx", "--rotate-h", "72")
    files = {path.name: path.read_text() for path in directory.iterdir()}

    assert "previous: is valid until 20" in refused("new", "drx", "--rotate-h", "72")
    assert {path.name: path.read_text() for path in directory.iterdir()} == files

    (directory / "previous").write_text(f"{SECRET}\naccept_until = 2026-01-31T00:00:00Z\n")
    assert run("new", "drx", "--rotate-h", "72").return_value == 0


def test_the_slot_of_an_operator_is_made_for_any_scheme_and_is_no_secret_of_the_sender(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    configure(monkeypatch, "ed25519", {"HEADER": "x-signature"})
    result = run("new", "drx", "--slot", "replay")

    assert result.exception is None
    assert "only those who post" in result.output
    directory.joinpath("replay").chmod(0o604)
    checked = run("check", "--json", "drx")
    assert checked.return_value == 1
    assert '"none is valid now: replay (replay, no end)"' in checked.output
    assert "replay can be read by every user" in checked.output
    assert directory.joinpath("replay").read_text().startswith("whsec_")


@pytest.mark.parametrize(("body", "code"), [(b"{}", "verified"), (b"[]", "signature_mismatch")])
def test_verify_takes_scheme_and_secrets_of_a_source(
    monkeypatch: pytest.MonkeyPatch, directory: Path, tmp_path: Path, body: bytes, code: str
) -> None:
    configure(monkeypatch, "github", {})
    (directory / "current").write_text(SECRET)
    (tmp_path / "body").write_bytes(body)
    header = f"X-Hub-Signature-256: sha256={HmacKey(SECRET.encode()).digest(b'{}').hex()}"

    result = CliRunner().invoke(
        verify, ["--source", "drx", "--json", "--header", header, str(tmp_path / "body")], standalone_mode=False
    )

    assert json.loads(result.output)["code"] == code


def test_a_rotation_keeps_no_secret_beyond_its_end(directory: Path) -> None:
    """A secret that was ended, since others may know it, would count again."""
    (directory / "current").write_text(f"{SECRET}\naccept_until = 2026-01-31T00:00:00Z\n")

    run("new", "drx", "--rotate-h", "72")

    assert (directory / "previous").read_text() == f"{SECRET}\naccept_until = 2026-01-31T00:00:00Z\n"
