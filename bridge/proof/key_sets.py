"""Fetch the key sets (JWKS) of token issuers in the background, into the slot directories of their sources.

The last good set stays there as a slot file, so a start without network works, and the ingress loads a new set like any
change of secrets. An unknown `kid` in a token does not cause a request: anyone could cause many.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import aiohttp

from bridge.errors import ConfigError
from bridge.proof.scheme import Scheme
from bridge.proof.secrets import parse_slot
from bridge.runtime.files import replace_file
from bridge.runtime.lifecycle import repeat
from bridge.runtime.logging import log
from bridge.runtime.secret_files import CONTENT_MAX_BYTES, Reload

FILE = "issuer.jwks.json"
PERIOD_S = 600.0  # seconds; issuers publish a new key at least a day before they sign with it
TIMEOUT_S = 5.0


class KeySetError(ConfigError):
    """No usable key set could be fetched; the message contains nothing of the response."""


class KeySetReader:
    """A worker that keeps the slot file of one source up to date."""

    def __init__(self, directory: Path, scheme: Scheme, *, source: str, observe: Callable[[Reload], None]) -> None:
        self._file = directory / FILE
        self._scheme = scheme
        self._source = source
        self._observe = observe
        self._problem = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Fetch once a period until `stop` is set; a failure is logged, and the last good set stays."""
        await repeat(self._refresh, PERIOD_S, stop)

    async def start(self) -> None:
        """Fetch once; `KeySetError` if that fails and no earlier set is stored."""
        await self._refresh()
        if self._problem and not self._file.exists():
            raise KeySetError(f"source {self._source}: {self._problem}, and none was read before")

    async def _refresh(self) -> None:
        try:
            content = await fetch(self._scheme, self._file)
            await asyncio.to_thread(_keep, self._file, content)
            self._problem = ""
        except KeySetError as exc:
            self._problem = str(exc)
            self._observe("failed")
            log.warning("worker.secrets_kept", source=self._source, code="key_set_unreadable")


async def fetch(scheme: Scheme, file: Path) -> bytes:
    """Fetch the key set of a scheme's issuer as the content of a slot file; `KeySetError` if it is unusable."""
    content = b""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.get(scheme.jwks_url, allow_redirects=False, raise_for_status=True) as response,
        ):
            async for part in response.content.iter_any():
                content += part
                if len(content) > CONTENT_MAX_BYTES:
                    break
    except (aiohttp.ClientError, OSError):  # a timeout is an OSError
        raise KeySetError(f"no key set can be read at {scheme.jwks_url}") from None
    try:
        if response.status == HTTPStatus.OK and content.lstrip().startswith(b"{"):
            parse_slot(file, content, scheme)
            return content
    except ConfigError as exc:
        raise KeySetError(str(exc).replace(str(file), scheme.jwks_url)) from None
    raise KeySetError(f"the answer of {scheme.jwks_url} is not a JWKS document")


def _keep(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            replace_file(file, content)
    except OSError:
        raise KeySetError(f"{file}: cannot be written") from None
