"""Senders of every scheme, each with a first and a second secret, for tests in which secrets change."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.dev.signing import standard_headers

# A secret, a body and its delivery's id to the headers that prove it.
Prove = Callable[[str, bytes, str], dict[str, str]]
# What an editor, a full disk or a template without its value leaves behind.
BAD_FILES = {"empty": "", "garbage": "not\x00", "half": "half: " * 2000}


class Sender(NamedTuple):
    """A sender.

    Attributes:
        scheme: How it proves its deliveries.
        prove: Makes the headers.
        line: Makes the content of a slot file of the secret, which is itself unless said.
        parameters: Of the scheme.
        in_url: The secret is in the URL.
    """

    scheme: str
    prove: Prove
    line: Callable[[str], str] = str
    parameters: Mapping[str, str] = {}
    in_url: bool = False

    def secret(self, number: int) -> str:
        """Return the first secret or another one; no two senders have an equal one."""
        return sha256(f"{self.scheme} {number}".encode()).hexdigest()

    def slot(self, number: int) -> str:
        """Return the content of the slot file of a secret."""
        return self.line(self.secret(number))

    def secrets(self, number: int) -> list[str]:
        """Return the secrets of a slot file: of the first scheme that has one, and of each other."""
        return [line.rpartition(" = ")[2] for line in self.slot(number).splitlines()]

    def headers(self, number: int, body: bytes, delivery_id: str) -> dict[str, str]:
        """Return the headers of a delivery that is proved with a secret."""
        return {"content-type": "application/json", **self.prove(self.secret(number), body, delivery_id)}

    def query(self, number: int) -> str:
        """Return the query of its URL."""
        return f"?token={self.secret(number)}" if self.in_url else ""


def _hmac(secret: str, text: bytes) -> bytes:
    return hmac.digest(secret.encode(), text, "sha256")


def _github(secret: str, body: bytes, delivery_id: str) -> dict[str, str]:
    return {"x-hub-signature-256": f"sha256={_hmac(secret, body).hex()}", "x-github-delivery": delivery_id}


def _shopify(secret: str, body: bytes, delivery_id: str) -> dict[str, str]:
    digest = base64.b64encode(_hmac(secret, body)).decode()
    return {"x-shopify-hmac-sha256": digest, "x-shopify-webhook-id": delivery_id}


def _stripe(secret: str, body: bytes, _delivery_id: str) -> dict[str, str]:
    now = str(int(time.time()))
    return {"stripe-signature": f"t={now},v1={_hmac(secret, now.encode() + b'.' + body).hex()}"}


def _photon(secret: str, body: bytes, _delivery_id: str) -> dict[str, str]:
    now = str(int(time.time()))
    return {"x-photon-signature": _hmac(secret, now.encode() + b"." + body).hex(), "x-photon-timestamp": now}


def _standard(secret: str, body: bytes, delivery_id: str) -> dict[str, str]:
    return standard_headers(delivery_id, int(time.time()), body, key=bytes.fromhex(secret))


def _key_pair(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))


def _basic(secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"drx:{secret}".encode()).decode()}


SENDERS: Mapping[str, Sender] = {
    sender.scheme: sender
    for sender in (
        Sender(
            "standard_webhooks", _standard, lambda secret: f"whsec_{base64.b64encode(bytes.fromhex(secret)).decode()}"
        ),
        Sender("github", _github),
        Sender("shopify", _shopify),
        Sender("stripe", _stripe),
        Sender("photon", _photon, parameters={"template": "{timestamp}.{body}"}),
        Sender(
            "ed25519",
            lambda secret, body, _: {"x-signature": _key_pair(secret).sign(body).hex()},
            lambda secret: _key_pair(secret).public_key().public_bytes_raw().hex(),
            {"header": "X-Signature"},
        ),
        Sender("secret_header", lambda secret, _body, _id: {"x-webhook-secret": secret}),
        Sender("dosespot", lambda secret, _body, _id: {"authorization": f"Secret {secret}"}),
        Sender("basic", lambda secret, _body, _id: _basic(secret), "drx:{}".format),
        Sender("url_token", lambda _secret, _body, _id: {}, in_url=True),
        Sender(
            "github+basic",
            lambda secret, body, delivery_id: _github(secret, body, delivery_id) | _basic(secret),
            lambda secret: f"{secret}\nbasic = drx:{secret}",
        ),
    )
}
