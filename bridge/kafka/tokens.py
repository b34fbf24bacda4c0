"""Tokens for SASL/OAUTHBEARER: by client credentials, or by a third-party provider, such as for MSK IAM."""

import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib import import_module
from urllib.parse import quote

import aiohttp
from aiokafka.abc import AbstractTokenProvider  # noqa: TID251 - the base class that aiokafka requires

from bridge.errors import ConfigError
from bridge.runtime.access_token import AccessToken, granted

# Seconds; a token endpoint responds in milliseconds, and a client has 40 s to connect.
TIMEOUT_S = 10.0
_RESPONSE_MAX_BYTES = 65_536


class TokenError(OSError):
    """No token is available; aiokafka treats it as a failed connection and retries."""

    def __str__(self) -> str:
        """Show neither request nor response."""
        return "the token endpoint returned no token"


@dataclass(frozen=True, slots=True)
class Grant:
    """Client credentials for a token endpoint (RFC 6749, section 4.4)."""

    url: str
    client_id: str
    client_secret: str
    scope: str = ""


async def ask_endpoint(grant: Grant) -> tuple[str, float]:
    """Return a token and its lifetime in seconds; `TokenError` if the endpoint does not respond or returns none."""
    form = {"grant_type": "client_credentials"} | ({"scope": grant.scope} if grant.scope else {})
    # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
    login = aiohttp.encode_basic_auth(quote(grant.client_id, ""), quote(grant.client_secret, ""))
    limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, trust_env=True) as session,
            # A redirect could send the secret to another host, also unencrypted.
            session.post(grant.url, data=form, headers={"Authorization": login}, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise TokenError
            return granted(await response.content.read(_RESPONSE_MAX_BYTES))
    except (OSError, aiohttp.ClientError, ValueError):
        # Its message may contain the secret.
        raise TokenError from None


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Passes tokens of a provider to a client, and notes whether the last request failed."""

    def __init__(self, provider: AbstractTokenProvider | AccessToken) -> None:
        self._provider = provider
        self.failed = False  # the last attempt failed; aiokafka does not report why a connection cannot be made

    async def token(self) -> str:
        """Return a valid token; `TokenError` for any failure of the provider, as others would end aiokafka's tasks."""
        self.failed = True
        try:
            token: str = await self._provider.token()
        except TokenError:
            raise
        except Exception as exc:  # third-party code, which may raise anything
            raise TokenError from exc
        self.failed = False
        return token

    def extensions(self) -> dict[str, str]:
        """Return the SASL extensions sent with a token."""
        return {} if isinstance(self._provider, AccessToken) else dict(self._provider.extensions())


def by_client_credentials(grant: Grant) -> Tokens:
    """Return a provider with the tokens of an endpoint, renewed before they expire."""
    return Tokens(AccessToken(partial(ask_endpoint, grant), now=time.monotonic))


def load_provider(path: str) -> AbstractTokenProvider:
    """Call the function at `module:function` for an `AbstractTokenProvider`; `ConfigError` if it returns none."""
    module, _, name = path.partition(":")
    try:
        provider = getattr(import_module(module), name)()
    except Exception as exc:  # third-party code, which may raise anything
        msg = f"kafka.sasl_token_provider: {path!r} returned no token provider: {type(exc).__name__}"
        raise ConfigError(msg) from exc
    if not isinstance(provider, AbstractTokenProvider):
        raise ConfigError(f"kafka.sasl_token_provider: {path!r} returned no aiokafka.abc.AbstractTokenProvider")
    return provider
