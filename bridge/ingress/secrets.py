"""Watch a source's secrets directory: one file per slot, re-read on change, the last good set kept meanwhile.

A slot file holds the secret on its first line, then optional lines `not_before = …` and `accept_until = …`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

import structlog

from bridge.errors import ConfigError
from bridge.ingress.signatures import KeySlot, parse_secret

Code = Literal[
    "secrets_unreadable",
    "secrets_empty",
    "secrets_changing",
    "secret_name",
    "secret_too_long",
    "secret_malformed",
    "secret_line",
    "secret_window",
]
Outcome = Literal["reloaded", "failed"]

# A change counts once two readings in a row agree, so it is in force after two periods: well within the promised 5 s.
POLL_PERIOD_S = 1.0
FILE_MAX_BYTES = 4096  # a 64-byte secret and two instants take 200
READ_ATTEMPTS = 3  # a directory that changes under three quick readings is being written to: the next period will do
# The name travels in a record header, so it is bounded and plain.
_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch
_is_instant = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
_WINDOW = ("not_before", "accept_until")
# The first matching slot is the one reported, so the one that should be in use comes first.
_RANK = {"current": 0, "previous": 1}

log = structlog.get_logger()

Fingerprint = tuple[tuple[str, int, int, int, int], ...]


class SecretsError(ConfigError):
    """A secrets directory cannot be used; the message names a file and never anything of its content."""

    def __init__(self, code: Code, message: str) -> None:
        """Keep the `code` that logs carry."""
        super().__init__(message)
        self.code = code


def load(path: Path) -> tuple[KeySlot, ...]:
    """Read all slots of a directory as they stand at one moment.

    Raises:
        SecretsError: Nothing there, or a file that is no slot.
    """
    return _read(path)[0]


def slot_word(name: str) -> Literal["current", "previous", "other"]:
    """Name a slot in a metric, where words must be few."""
    return "current" if name == "current" else "previous" if name == "previous" else "other"


class SecretDirectory:
    """The key slots of one source, kept up to date by a worker."""

    def __init__(
        self,
        *,
        path: Path,
        source: str,
        observe: Callable[[Outcome], None],
        wait: Callable[[asyncio.Event, float], Awaitable[None]] | None = None,
    ) -> None:
        """Read the directory once.

        Args:
            path: Directory with one file per slot.
            source: Name of the sender, for the log.
            observe: Told of each change taken over and of each reading that could not be.
            wait: Returns after so many seconds, or when the event is set.

        Raises:
            SecretsError: There is no last good set to keep yet, so the process cannot start.
        """
        self._path = path
        self._source = source
        self._observe = observe
        self._wait = wait or _wait
        self._keys, self._in_force = _read(path)
        self._seen: Fingerprint | None = self._in_force
        self._failure = ""

    @property
    def keys(self) -> tuple[KeySlot, ...]:
        """Every slot of the last good reading, in or outside its window."""
        return self._keys

    @property
    def expires_at(self) -> float:
        """Unix seconds up to which the last of the slots counts; infinite if one has no end."""
        return max(slot.accept_until for slot in self._keys)

    async def run(self, stop: asyncio.Event) -> None:
        """Look for changes once a period until `stop` is set."""
        while not stop.is_set():
            await self._wait(stop, POLL_PERIOD_S)
            # A disk may hang, and the loop must not hang with it.
            await asyncio.to_thread(self.poll)

    def poll(self) -> None:
        """Read the directory if it has changed, and take the new set over once it has stood still for a period."""
        try:
            if not self._failure and _fingerprint(self._path) == self._in_force:
                self._seen = self._in_force
                return
            keys, fingerprint = _read(self._path)
        except SecretsError as exc:
            self._seen = None
            self._fail(exc.code)
            return
        if fingerprint != self._seen:
            self._seen = fingerprint  # a file may be half written and still look like a secret
            return
        self._failure = ""
        if fingerprint != self._in_force:
            self._keys, self._in_force = keys, fingerprint
            self._observe("reloaded")
            log.info("worker.secrets_reloaded", source=self._source)

    def _fail(self, code: str) -> None:
        self._observe("failed")
        if code != self._failure:
            log.warning("worker.secrets_kept", source=self._source, code=code)
        self._failure = code


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


def _read(path: Path) -> tuple[tuple[KeySlot, ...], Fingerprint]:
    """Read all slots, and again if the directory changed meanwhile: half of one set and half of another is no set."""
    for _ in range(READ_ATTEMPTS):
        before = _fingerprint(path)
        if not before:
            raise SecretsError("secrets_empty", f"{path}: no secret there; add a file `current` with one")
        try:
            slots = [_slot(path, name) for name, *_ in before]
        except SecretsError:
            if _fingerprint(path) == before:
                raise
            continue
        if _fingerprint(path) == before:
            return tuple(sorted(slots, key=lambda slot: (_RANK.get(slot.name, 2), slot.name))), before
    raise SecretsError("secrets_changing", f"{path}: changes while it is read; try again")


def _fingerprint(path: Path) -> Fingerprint:
    """Identify what stands behind the names, through symbolic links: Kubernetes swaps those, not the files.

    Dot files and directories are no slots: editors and Kubernetes (`..data`) keep their own things there.
    """
    found = []
    try:
        for entry in sorted(path.iterdir()):
            if entry.name.startswith(".") or entry.is_dir():
                continue
            status = entry.stat()
            found.append((entry.name, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    except OSError:
        raise SecretsError("secrets_unreadable", f"{path}: cannot read this directory or a file of it") from None
    return tuple(found)


def _slot(path: Path, name: str) -> KeySlot:
    where = path / name
    if not _is_name(name):
        raise SecretsError("secret_name", f"{path}: a file's name is no slot name (letters, digits, `.`, `_`, `-`)")
    first, *others = _lines(where)
    try:
        hmac_key, public_key = parse_secret(first)
    except ConfigError as exc:
        raise SecretsError("secret_malformed", f"{where}: {exc}") from None
    window = {}
    for line in filter(None, others):
        word, equals, text = (part.strip() for part in line.partition("="))
        if not equals or word not in _WINDOW or word in window:
            message = f"{where}: after the secret come only `not_before = …` and `accept_until = …`, once each"
            raise SecretsError("secret_line", message)
        window[word] = _unix_seconds(text, where=where)
    slot = KeySlot(name, hmac_key=hmac_key, public_key=public_key, **window)
    if slot.not_before > slot.accept_until:
        raise SecretsError("secret_window", f"{where}: not_before is later than accept_until")
    return slot


def _lines(where: Path) -> list[str]:
    try:
        with where.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except OSError:
        raise SecretsError("secrets_unreadable", f"{where}: cannot read this file") from None
    if len(content) > FILE_MAX_BYTES:
        raise SecretsError("secret_too_long", f"{where}: more than {FILE_MAX_BYTES} bytes is no slot file")
    # What is not ASCII is replaced by a character that no rule admits.
    return [line.strip() for line in content.decode("ascii", "replace").split("\n")]


def _unix_seconds(text: str, *, where: Path) -> float:
    try:
        if _is_instant(text):
            return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:
        pass
    raise SecretsError("secret_window", f"{where}: not_before and accept_until are instants like 2026-01-31T00:00:00Z")
