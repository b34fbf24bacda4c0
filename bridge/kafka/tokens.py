"""Tokens for SASL/OAUTHBEARER: by client credentials, or by a provider of somebody else, such as for MSK IAM."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from aiokafka.abc import AbstractTokenProvider  # noqa: TID251 - aiokafka takes nothing else

from bridge.errors import ConfigError

# A token endpoint answers in milliseconds; a client that connects has 40 s for all of it.
TIMEOUT_S = 10.0
# RFC 6749 leaves `expires_in` to the server, and recommends it.
_LIFETIME_S = 300.0
# A token is renewed when this share of its lifetime is left: a handshake must not begin with one that ends.
_RENEWED_AT = 0.2
_ANSWER_MAX_BYTES = 65_536


class TokenError(OSError):
    """No token can be got; aiokafka treats it as a failed connection and tries again."""

    def __str__(self) -> str:
        """Show nothing of request or answer."""
        return "the token endpoint gives no token"


@dataclass(frozen=True, slots=True)
class Grant:
    """What proves to a token endpoint who we are (RFC 6749, section 4.4)."""

    url: str
    client_id: str
    client_secret: str
    scope: str = ""


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: urllib would send the secret to wherever it leads, also in clear."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none."""


def ask_endpoint(grant: Grant) -> tuple[str, float]:
    """Return a token and its lifetime in seconds; `TokenError` if the endpoint does not answer or gives none."""
    form = {"grant_type": "client_credentials"} | ({"scope": grant.scope} if grant.scope else {})
    # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
    login = base64.b64encode(f"{quote(grant.client_id, '')}:{quote(grant.client_secret, '')}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Accept": "application/json"}
    request = Request(grant.url, data=urlencode(form).encode(), headers=headers, method="POST")  # noqa: S310 - the setting allows https and http only
    try:
        with build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
            document: Any = json.loads(answer.read(_ANSWER_MAX_BYTES))
        token, lifetime_s = document["access_token"], float(document.get("expires_in", _LIFETIME_S))
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Its text may hold the secret.
        raise TokenError from None
    if not isinstance(token, str) or not token:
        raise TokenError
    return token, lifetime_s


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Gives a client the tokens of a provider, and notes whether the last request failed."""

    def __init__(self, provider: AbstractTokenProvider) -> None:
        self._provider = provider
        self.failed = False  # the last attempt failed; aiokafka does not report why a connection cannot be made

    async def token(self) -> str:
        """Return a token that has not ended; `TokenError` for all that a provider raises, or aiokafka's tasks end."""
        self.failed = True
        try:
            token: str = await self._provider.token()
        except TokenError:
            raise
        except Exception as exc:  # code of a site's package, which may raise anything
            raise TokenError from exc
        self.failed = False
        return token

    def extensions(self) -> dict[str, str]:
        """Return what is sent beside a token."""
        extensions: dict[str, str] = self._provider.extensions()
        return extensions


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Asks a token endpoint, and again before a token ends."""

    def __init__(
        self,
        grant: Grant,
        *,
        ask: Callable[[Grant], tuple[str, float]] = ask_endpoint,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grant = grant
        self._ask = ask
        self._now = now
        self._token = ""
        self._renewed_at = self._ends_at = 0.0
        self._one_at_a_time = asyncio.Lock()

    async def token(self) -> str:
        """Return a token that has not ended; `TokenError` if the endpoint does not give one."""
        async with self._one_at_a_time:
            if self._now() >= self._renewed_at or not self._token:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        asked = self._now()
        try:
            self._token, lifetime_s = await asyncio.to_thread(self._ask, self._grant)
        except TokenError:
            left_s = self._ends_at - self._now()
            if left_s <= 0:
                raise
            # The token at hand is still good; half of what is left, so that an endpoint in trouble is asked seldom.
            self._renewed_at = self._now() + left_s / 2
        else:
            self._renewed_at = asked + lifetime_s * (1 - _RENEWED_AT)
            self._ends_at = asked + lifetime_s


def load_provider(place: str) -> AbstractTokenProvider:
    """Call the function at `module:function` for an `AbstractTokenProvider`; `ConfigError` if it gives none."""
    module, _, name = place.partition(":")
    try:
        provider = getattr(import_module(module), name)()
    except Exception as exc:  # code of a site's package, which may raise anything
        msg = f"kafka.sasl_token_provider: {place!r} gives no token provider: {type(exc).__name__}"
        raise ConfigError(msg) from exc
    if not isinstance(provider, AbstractTokenProvider):
        raise ConfigError(f"kafka.sasl_token_provider: {place!r} returns no aiokafka.abc.AbstractTokenProvider")
    return provider
