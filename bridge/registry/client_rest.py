"""One HTTP call to a Confluent-compatible registry: short, repeated with jitter, judged by its status."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from yarl import URL

from bridge.errors import ConfigError
from bridge.registry.client_errors import RegistryRefusedError, RegistryUnavailableError

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
# A registry answers from memory in milliseconds; longer means it is in trouble.
TIMEOUT_S: Final = 2.0
# With the pauses below about ten seconds at worst, after which whoever asked decides.
TRIES: Final = 4
DELAY_FIRST_S: Final = 0.1
DELAY_MAX_S: Final = 1.0

_DETAIL_MAX: Final = 500
NO_REGISTRY: Final = "what answers there is no schema registry"


@dataclass(frozen=True, slots=True)
class Reply:
    """A registry's last word.

    Attributes:
        url: Address of the registry.
        status: HTTP status, below 500.
        document: Body, or None where it was no JSON.
    """

    url: str
    status: int
    document: Any

    @property
    def found(self) -> bool:
        """True for any 2xx."""
        return self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def missing(self) -> bool:
        """True when the thing, or the whole endpoint, is not there; the body's code is no help to tell which."""
        return self.status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.GONE)

    def fields(self) -> Mapping[str, Any]:
        """The document if it is an object; RegistryUnavailableError otherwise, for then no registry has answered."""
        if not isinstance(self.document, dict):
            raise RegistryUnavailableError(self.url, NO_REGISTRY)
        return self.document

    def refusal(self, what: str) -> RegistryRefusedError:
        """Say that `what` was refused."""
        said = self.document if isinstance(self.document, dict) else {}
        error_code, detail = said.get("error_code"), said.get("message")
        return RegistryRefusedError(
            what,
            status=self.status,
            error_code=error_code if isinstance(error_code, int) else 0,
            detail=detail[:_DETAIL_MAX] if isinstance(detail, str) else "",
        )


class Rest:
    """The HTTP side of one registry."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        credentials: tuple[str, str] | None,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Take a session that stays its owner's.

        Args:
            session: Open for as long as this is used.
            url: Base address, with any path, such as Apicurio's `/apis/ccompat/v7`.
            credentials: User and password of basic authentication; they win over those in `url`.
            sleep: Pauses between tries.
            jitter: Uniform in [0, 1); many clients must not come back at one moment.
            timeout_s: For one try, from connecting to the last byte.
        """
        self.url = plain_url(url)
        self._session = session
        self._headers = {"Accept": f"{CONTENT_TYPE}, application/json"}
        known = URL(url)
        pair = credentials or ((known.user, known.password or "") if known.user else None)
        if pair:
            self._headers["Authorization"] = f"Basic {base64.b64encode(':'.join(pair).encode()).decode()}"
        self._sleep = sleep
        self._jitter = jitter
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def call(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> Reply:
        """Ask until there is an answer that says something.

        All calls may be repeated: registering the same schema twice gives the same id.

        Raises:
            RegistryUnavailableError: None of the tries was answered with less than 500.
        """
        for attempt in range(TRIES):
            if attempt:
                await self._sleep(min(DELAY_FIRST_S * 2 ** (attempt - 1), DELAY_MAX_S) * (0.5 + self._jitter() / 2))
            reply = await self._once(method, path, body)
            if reply is not None:
                return reply
        raise RegistryUnavailableError(self.url, f"no answer in {TRIES} tries; is it up, and is the URL right?")

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply | None:
        headers = self._headers if body is None else {**self._headers, "Content-Type": CONTENT_TYPE}
        try:
            async with self._session.request(
                method,
                URL(f"{self.url}/{path}", encoded=True),
                data=None if body is None else json.dumps(body),
                headers=headers,
                timeout=self._timeout,
            ) as response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status == HTTPStatus.TOO_MANY_REQUESTS:
            return None
        try:
            return Reply(self.url, response.status, json.loads(text))
        except (ValueError, RecursionError):
            return Reply(self.url, response.status, None)


def plain_url(url: str) -> str:
    """Return the address that names a registry: without credentials, query or closing slash.

    Raises:
        ConfigError: No address that can be asked; the message does not show it, for it may hold a password.
    """
    try:
        parts = URL(url)
    except ValueError:
        parts = URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        msg = "the registry's URL is not an http address with a host, such as https://registry.example:8081"
        raise ConfigError(msg)
    return str(parts.with_user(None).with_query(None).with_fragment(None)).rstrip("/")
