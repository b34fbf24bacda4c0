"""A bearer token of OAuth 2.0 that is asked for on first use, and again before it ends (RFC 6749, section 5.1)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

_LIFETIME_S = 300.0  # where a server leaves out `expires_in`, which is only recommended
# A token is renewed when this share of its lifetime is left: requests and handshakes finish within it.
_RENEWED_AT = 0.2


def granted(answer: bytes) -> tuple[str, float]:
    """Return token and lifetime in seconds from a JSON answer; a `ValueError` for any other may hold the token."""
    try:
        document: Any = orjson.loads(answer)
        token, lifetime_s = document["access_token"], float(document.get("expires_in", _LIFETIME_S))
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError from exc
    if not isinstance(token, str) or not token:
        raise ValueError
    return token, lifetime_s


class AccessToken:
    """Keeps one token; safe to share among tasks."""

    def __init__(self, ask: Callable[[], Awaitable[tuple[str, float]]], *, now: Callable[[], float]) -> None:
        """Get tokens and their lifetimes in seconds by `ask`, which raises if there is none now."""
        self._ask = ask
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self.forget()

    def forget(self) -> None:
        """Ask for another token the next time."""
        self._token, self._renewed_at, self._ends_at = "", 0.0, 0.0

    async def token(self) -> str:
        """Return a token that has not ended; raises as `ask` if there is none any more."""
        async with self._one_at_a_time:
            if not self._token or self._now() >= self._renewed_at:
                asked = self._now()
                try:
                    self._token, lifetime_s = await self._ask()
                except Exception:
                    left_s = self._ends_at - self._now()
                    if left_s <= 0:
                        raise
                    # The token at hand is still good; half of what is left, so that an endpoint in trouble is asked
                    # seldom.
                    self._renewed_at = self._now() + left_s / 2
                else:
                    self._renewed_at = asked + lifetime_s * (1 - _RENEWED_AT)
                    self._ends_at = asked + lifetime_s
            return self._token
