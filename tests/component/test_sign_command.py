"""`drx-bridge verify` accepts what `sign` prints and `simulate` sends, for every scheme."""

import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bridge.commands.sign import sign
from bridge.commands.verify import verify
from bridge.dev.simulate import simulate
from bridge.errors import ConfigError
from tests.builders import SECRET
from tests.http_server import served

NOW = 1_700_000_000
PASSWORD = "user:a-password-of-many-characters"
TEXT = "a-secret-of-many-characters"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC, ED = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
TOKEN = {"issuer": "https://issuer.example", "audience": "bridge", "id_claim": "jti", "claims": "email=x"}
TOKEN |= {"body_claim": "hash", "header": "X-Token"}


def private(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


PUBLIC = {
    private(key): key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for key in (RSA, EC, ED)
}
SCHEMES = [
    ("standard_webhooks", SECRET, {}),
    ("github", TEXT, {}),
    ("stripe", TEXT, {}),
    ("shopify", TEXT, {}),
    ("photon", TEXT, {"template": "{timestamp}.{body}"}),
    ("dosespot", TEXT, {}),
    ("secret_header", TEXT, {}),
    ("basic", PASSWORD, {}),
    ("basic", "user:ein-Paßwort-aus-Wörtern", {}),
    ("github", "ein-Geheimnis-mit-Umläuten-äöü", {}),
    ("body_hmac", TEXT, {"header": "X-S", "digest": "sha512", "encoding": "base64", "prefix": "v0="}),
    ("jwt", private(RSA), {**TOKEN, "algorithms": "PS256,ES256"}),
    ("jwt", private(RSA), {**TOKEN, "algorithms": "RS256"}),
    ("jwt", private(EC), {**TOKEN, "algorithms": "RS256,ES256"}),
    ("jwt", private(ED), {**TOKEN, "algorithms": "EdDSA"}),
    ("jwt", TEXT + TEXT, {**TOKEN, "algorithms": "HS256"}),
]


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body.json"
    path.write_bytes(b'{"id": "evt_1"}\n')
    return path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.mkdir()
    (path / "current").write_text(f"{SECRET}\n")
    return path


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(sign, [str(each) for each in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    assert result.return_value == 0
    return result.stdout


@pytest.mark.parametrize(
    ("scheme", "secret", "parameters"), SCHEMES, ids=[f"{scheme} {secret[:9]}" for scheme, secret, _ in SCHEMES]
)
def test_what_it_prints_and_simulate_sends_is_accepted(
    body: Path, secrets: Path, scheme: str, secret: str, parameters: dict[str, str]
) -> None:
    slot = key = secrets / "current"
    slot.write_text(f"{PUBLIC.get(secret, secret)}\naccept_until = 2099-01-01T00:00:00Z\n")
    if secret in PUBLIC:
        key = secrets.with_name("private.pem")
        key.write_text(secret)
    named = ["--scheme", scheme, *(part for each in parameters.items() for part in ("--parameter", "=".join(each)))]
    sent: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.extend(f"{name}: {value}" for name, value in self.headers.items())
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

    headers = run(body, *named, "--secret-file", key, "--timestamp", str(NOW)).splitlines()
    with served(Receiver) as url:
        simulated = [*named, "--url", url, "--sample", str(body), "--secret-file", str(key)]
        assert CliRunner().invoke(simulate, simulated, standalone_mode=False).return_value == 0

    for all_, at in ((headers, NOW), (sent, int(time.time()))):
        given = [part for header in all_ for part in ("--header", header)]
        result = CliRunner().invoke(
            verify, [*named, "--secrets-dir", str(secrets), "--now", str(at), *given, str(body)], standalone_mode=False
        )
        assert json.loads(result.stdout) == {"accept": True, "code": "verified"}


@pytest.mark.parametrize(("name", "kind"), [("fill.xml", "application/xml"), ("fill.json", "application/json")])
def test_a_body_is_called_what_its_file_s_name_says(tmp_path: Path, secrets: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text("<Fill/>")

    assert f"content-type: {kind}\n" in run(tmp_path / name, "--secret-file", secrets / "current")


@pytest.mark.parametrize("scheme", ["url_token", "ed25519", "jwt"])
def test_what_cannot_be_signed_for_is_said_to_be_so(body: Path, secrets: Path, scheme: str) -> None:
    parameters = {"ed25519": {"header": "X-S"}, "jwt": TOKEN}.get(scheme, {})
    (secrets / "current").write_text(PUBLIC[private(ED)] if scheme == "jwt" else SECRET)
    given = [f"--parameter={name}={value}" for name, value in parameters.items()]

    with pytest.raises(ConfigError, match=r"no delivery can be signed by|holds no private key") as caught:
        run(body, "--scheme", scheme, *given, "--secret-file", secrets / "current")

    assert SECRET not in str(caught.value)
