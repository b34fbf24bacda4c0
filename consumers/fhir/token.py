"""Bearer tokens for requests: from a file, or from SMART Backend Services.

A client signs a JWT of five minutes at most with its private key (RS384 or ES384), and gets a bearer token for it from
the token endpoint. Source: SMART App Launch 2.2, "Backend Services" and "Asymmetric client authentication".
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bridge.errors import BridgeError, ConfigError, TransientError
from bridge.runtime.access_token import AccessToken, granted
from consumers.fhir.options import FhirOptions
from consumers.http import HttpClient
from consumers.options import is_plain, read_token

# Seconds; the standard allows 300, and the rest is for clock differences.
_ASSERTION_S = 240
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_P384_BITS = 384

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class FileToken:
    """A bearer token in a file, read at each request; without a file none is sent."""

    def __init__(self, file: Path | None) -> None:
        """Read the file once, to refuse one without a token."""
        self._file = file
        try:
            self._read()
        except TransientError:
            raise ConfigError(f"fhir.token_file: cannot read {file}, or it holds no token") from None

    async def headers(self) -> Mapping[str, str]:
        """Return the headers that authorize a request; `TransientError` if no token is available now."""
        return self._read()

    def forget(self) -> bool:
        """Return whether a new token may differ after a 401: no, only the file can change it."""
        return False

    def _read(self) -> Mapping[str, str]:
        return {} if self._file is None else _bearer(read_token(self._file, code="no_token"))


class SmartToken:
    """A token of SMART Backend Services, requested on first use and before it expires."""

    def __init__(
        self, http: HttpClient, options: FhirOptions, *, key: SigningKey, now: Callable[[], float] = time.time
    ) -> None:
        """`http` is a session with the token endpoint; `now` is in Unix seconds."""
        self._http = http
        self._options = options
        self._key = key
        self._now = now
        self._token = AccessToken(self._ask, now=now)

    async def headers(self) -> Mapping[str, str]:
        """Return the headers that authorize a request."""
        return _bearer(await self._token.token())

    def forget(self) -> bool:
        """Discard the token, so that the next use requests a new one; return True."""
        self._token.forget()
        return True

    async def _ask(self) -> tuple[str, float]:
        form = {
            "grant_type": "client_credentials",
            "scope": self._options.smart_scope,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._assertion(),
        }
        try:
            response = await self._http.post(
                # The session's base URL has no final slash.
                "/" if self._options.smart_token_url.endswith("/") else "",
                urlencode(form),
                headers={"content-type": "application/x-www-form-urlencoded"},
            )
            token, lifetime_s = granted(response.body)
        except (BridgeError, ValueError) as exc:
            if isinstance(exc, TransientError) and exc.systemic:
                raise
            # Not caused by a record.
            raise TransientError("token_refused", systemic=True) from None
        if not is_plain(token):
            raise TransientError("no_token", systemic=True)
        return token, lifetime_s

    def _assertion(self) -> str:
        now = int(self._now())
        options = self._options
        claims = {
            "iss": options.smart_client_id,
            "sub": options.smart_client_id,
            "aud": options.smart_token_url,
            "jti": uuid4().hex,
            "iat": now,
            "exp": now + _ASSERTION_S,
        }
        algorithm = "RS384" if isinstance(self._key, rsa.RSAPrivateKey) else "ES384"
        headers = {"kid": options.smart_key_id} if options.smart_key_id else {}
        return jwt.encode(claims, self._key, algorithm, headers)


Token = FileToken | SmartToken


def read_key(file: Path) -> SigningKey:
    """Read a private key to sign with: RSA, or EC on P-384; error messages contain nothing of the file."""
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        key = None
    if isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size == _P384_BITS
    ):
        return key
    raise ConfigError(f"fhir.smart_key_file: {file} is not a private RSA or EC P-384 key in PEM, without a password")


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}
