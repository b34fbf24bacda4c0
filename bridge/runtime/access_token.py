"""An OAuth 2.0 bearer token, requested on first use and renewed before it expires (RFC 6749, section 5.1)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

_LIFETIME_S = 300.0  # seconds, if a server omits `expires_in`, which is only recommended
# Share of the lifetime left at renewal: enough for requests and handshakes in progress to finish.
_RENEWED_AT = 0.2


def granted(response: bytes) -> tuple[str, float]:
    """Return token and lifetime in seconds from a JSON response; else `ValueError`, which may contain the token."""
    try:
        document: Any = orjson.loads(response)
        token, lifetime_s = document["access_token"], float(document.get("expires_in", _LIFETIME_S))
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError from exc
    if not isinstance(token, str) or not token:
        raise ValueError
    return token, lifetime_s


class AccessToken:
    """Caches one token; can be shared among tasks."""

    def __init__(self, ask: Callable[[], Awaitable[tuple[str, float]]], *, now: Callable[[], float]) -> None:
        """`ask` returns a token and its lifetime in seconds, or raises."""
        self._ask = ask
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self.forget()

    def forget(self) -> None:
        """Discard the token, so that the next use requests a new one."""
        self._token, self._renewed_at, self._ends_at = "", 0.0, 0.0

    async def token(self) -> str:
        """Return a valid token; raises like `ask` if there is none."""
        async with self._one_at_a_time:
            if not self._token or self._now() >= self._renewed_at:
                asked = self._now()
                try:
                    self._token, lifetime_s = await self._ask()
                except Exception:
                    left_s = self._ends_at - self._now()
                    if left_s <= 0:
                        raise
                    # The current token is still valid: retry after half of its remaining time, to spare a failing
                    # endpoint.
                    self._renewed_at = self._now() + left_s / 2
                else:
                    self._renewed_at = asked + lifetime_s * (1 - _RENEWED_AT)
                    self._ends_at = asked + lifetime_s
            return self._token
