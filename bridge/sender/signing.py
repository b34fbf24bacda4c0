"""Sign as senders do: the counterpart of each scheme that verifies headers."""

import hmac
from binascii import b2a_base64
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.proof.scheme import HmacKey, Scheme
from bridge.proof.schemes.body_hmac import BodyHmac
from bridge.proof.schemes.shared_secret import Basic, SecretHeader, UrlToken
from bridge.proof.schemes.standard_webhooks import StandardWebhooks, parse_secret
from bridge.runtime.signing_secret import sign

# From webhook id, Unix time and body of an attempt to its signature headers.
Sign = Callable[[str, int, bytes], dict[str, str]]

TOKEN_S = 300  # seconds; as old as a delivery may be
_SECRET_FILE_MAX_BYTES = 4096  # bytes, as for a slot file of the ingress


def read_signer(scheme: Scheme, secret_file: Path) -> Sign:
    """Read a secret in slot file format, and return a function that signs deliveries with it."""
    try:
        with secret_file.open("rb") as file:
            content = file.read(_SECRET_FILE_MAX_BYTES)
        line = content.split(b"\n", 1)[0].strip().decode()
    except OSError as exc:
        raise ConfigError(f"--secret-file: cannot read {secret_file} ({exc.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--secret-file: {secret_file}: is not UTF-8") from None
    try:
        if scheme.name != "jwt":
            return _signer(scheme, line)
        return _token_signer(scheme, content.strip() if content.startswith(b"-----BEGIN ") else line.encode())
    except ConfigError as exc:
        raise ConfigError(f"--secret-file: {secret_file}: {exc}") from None


def standard_headers(webhook_id: str, timestamp: int, body: bytes, *, key: bytes) -> dict[str, str]:
    """Sign by Standard Webhooks 1.0.0."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(webhook_id, timestamp, body, key=key),
    }


def _signer(scheme: Scheme, line: str) -> Sign:
    if isinstance(scheme, StandardWebhooks):
        key = parse_secret(line)
        if not isinstance(key, HmacKey):
            raise ConfigError("holds a public key; signing needs a secret that starts with whsec_")
        return lambda webhook_id, timestamp, body: standard_headers(webhook_id, timestamp, body, key=key.secret)
    if isinstance(scheme, BodyHmac):
        body_key = scheme.parse_key(line)
        return lambda webhook_id, timestamp, body: _hmac_headers(scheme, body_key, webhook_id, timestamp, body)
    if isinstance(scheme, Basic):
        scheme.parse_key(line)
        credentials = b2a_base64(line.encode(), newline=False).decode()
        return lambda _id, _timestamp, _body: {"authorization": f"Basic {credentials}"}
    if isinstance(scheme, SecretHeader):
        scheme.parse_key(line)
        value = " ".join(filter(None, (scheme.word.decode(), line)))
        return lambda _id, _timestamp, _body: {scheme.header.decode(): value}
    why = "its secret is in the URL" if isinstance(scheme, UrlToken) else "only one with a shared secret can"
    raise ConfigError(f"no delivery can be signed by {scheme.name}: {why}")


def _token_signer(scheme: Any, key: bytes) -> Sign:
    """Sign tokens as their issuer, with its private key in PEM, or the secret of HS256."""
    from jwt import PyJWTError, encode  # noqa: PLC0415 - needed only for sources with tokens

    def sign(algorithm: str, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        claims = {"iss": scheme.issuer, "aud": scheme.audience, "iat": timestamp, "exp": timestamp + TOKEN_S}
        claims |= scheme.claims | {scheme.id_claim: webhook_id, scheme.body_claim: sha256(body).hexdigest()}
        claims.pop("", None)
        token = encode(claims, key, algorithm)
        return {scheme.header.decode(): f"{scheme.word.decode()} {token}".lstrip()}

    for algorithm in sorted(scheme.algorithms, reverse=True):
        with suppress(PyJWTError, ValueError, TypeError, AttributeError):  # the last for a public key
            sign(algorithm, "", 0, b"")
            return partial(sign, algorithm)
    raise ConfigError("holds no private key in PEM, nor a secret, for one of the scheme's algorithms")


def _hmac_headers(scheme: BodyHmac, key: HmacKey, webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    at = scheme.template.time_text(timestamp)
    signed = scheme.template.render(webhook_id.encode(), at.encode(), body)
    digest = hmac.digest(key.secret, signed, key.digestmod)
    signature = digest.hex() if scheme.encoding == "hex" else b2a_base64(digest, newline=False).decode()
    value = f"{scheme.prefix.decode()}{signature}"
    if scheme.format == "pairs":
        value = f"{scheme.time_name}={at}{scheme.pair_separator}{scheme.signature_name}={signature}"
    headers = {scheme.header: value, scheme.timestamp_header: at, scheme.id_header: webhook_id}
    return {name.decode(): each for name, each in headers.items() if name}
