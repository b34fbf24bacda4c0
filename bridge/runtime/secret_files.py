"""Watch a directory of secrets: one file per slot, reloaded on change; the last valid set stays in use.

A slot file has the secret on its first line, then optional lines `not_before = …` and `accept_until = …`. If several
secrets belong together, each further one has a line `<name> = <secret>`.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from bridge.errors import ConfigError
from bridge.runtime.files import file_names, read_secret
from bridge.runtime.io_thread import IOThread
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log
from bridge.runtime.signing_secret import Slot

SlotFault = Literal[
    "secrets_unreadable",
    "secrets_empty",
    "secret_name",
    "secret_too_long",
    "secret_malformed",
    "secret_line",
    "secret_window",
    "secret_shared",
    "secret_guessable",
]
Reload = Literal["reloaded", "failed"]

# Seconds between two readings. A change is applied once two readings agree: well within the promised 5 s.
POLL_PERIOD_S = 1.0
FILE_MAX_BYTES = 4096  # bytes; a 64-byte secret and two instants take 200
CONTENT_MAX_BYTES = 65_536  # bytes; ten RSA keys with certificates take 30,000
# The name is written to a record header, so it is short and plain.
_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch
_is_instant = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
).fullmatch
WINDOW = ("not_before", "accept_until")
# The first matching slot is reported, so the one that should be in use comes first.
_RANK = {"current": 0, "previous": 1}


# Name and content of every slot file; modification times would miss two writes within one clock tick.
Snapshot = tuple[tuple[str, bytes], ...]


class SecretsError(ConfigError):
    """A secrets directory is invalid; the message names a file and contains nothing of its content."""

    def __init__(self, code: SlotFault, message: str) -> None:
        super().__init__(message)
        self.code = code


AnySlot = TypeVar("AnySlot", bound=Slot[Any])
ParseSlot = Callable[[Path, bytes], AnySlot]
"""Parses the content of the slot file at a path; raises `SecretsError` if it is invalid."""


class SlotLines(NamedTuple):
    """The content of a slot file."""

    secrets: list[str]  # the first line, and the lines of further names
    window: dict[str, float]  # `not_before` and `accept_until`, if given, in Unix seconds


def load_slots(path: Path, parse: ParseSlot[AnySlot]) -> tuple[AnySlot, ...]:
    """Read a consistent snapshot of all slots of a directory; `SecretsError` if it has none or one is invalid."""
    return _slots(path, _snapshot(path), parse)


@dataclass(eq=False, repr=False)
class SlotDirectory(Generic[AnySlot]):
    """A worker that keeps the slots of a directory up to date; `SecretsError` if it starts without a valid set."""

    path: Path
    parse: ParseSlot[AnySlot]
    _: KW_ONLY
    source: str
    observe: Callable[[Reload], None]  # called for each applied change and each failed reading
    # Raises `SecretsError` to reject a changed set.
    check: Callable[[Sequence[AnySlot]], None] = lambda _: None

    def __post_init__(self) -> None:
        self._in_force = self._seen = _snapshot(self.path)
        self.keys = _slots(self.path, self._in_force, self.parse)  # of the last valid reading, valid now or not
        self._failure = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Check for changes once a period until `stop` is set."""
        # In its own thread: a disk may hang, and an unresponsive name server may occupy all threads of the default
        # executor.
        thread = IOThread(f"secrets-{self.source}")
        try:
            while await pause(stop, POLL_PERIOD_S):
                await thread.run(self.poll)
        finally:
            thread.end()

    def poll(self) -> None:
        """Read the directory, and apply a new set once it has been stable for a period."""
        try:
            snapshot = _snapshot(self.path)
            is_stable = snapshot == self._seen  # a file may be half written and still look like a secret
            self._seen = snapshot
            if snapshot == self._in_force:
                self._failure = ""
            elif is_stable:
                self._take_over(snapshot)
        except SecretsError as exc:
            self._fail(exc.code)

    def _take_over(self, snapshot: Snapshot) -> None:
        keys = _slots(self.path, snapshot, self.parse)
        self.check(keys)
        self.keys = keys
        self._in_force = snapshot
        self._failure = ""
        self.observe("reloaded")
        log.info("worker.secrets_reloaded", source=self.source)

    def _fail(self, code: str) -> None:
        self.observe("failed")
        if code != self._failure:
            log.warning("worker.secrets_kept", source=self.source, code=code)
        self._failure = code


def read_lines(
    where: Path, content: bytes, *, further: Sequence[str] = (), bytes_max: int = FILE_MAX_BYTES
) -> SlotLines:
    """Parse a slot file with a line for each of `further`; `SecretsError` contains nothing of the content."""
    if not _is_name(where.name):
        message = f"{where.parent}: a file's name is not a slot name (letters, digits, `.`, `_`, `-`)"
        raise SecretsError("secret_name", message)
    if len(content) > bytes_max:
        raise SecretsError("secret_too_long", f"{where}: more than {bytes_max} bytes is not a slot file")
    try:
        first, *others = (line.strip().decode() for line in content.split(b"\n"))
    except UnicodeDecodeError:
        raise SecretsError("secret_malformed", f"{where}: is not UTF-8") from None
    named = _named_lines(others if first else [], names=(*further, *WINDOW), where=where)
    missing = next((name for name in further if name not in named), None)
    if missing:
        raise SecretsError("secret_malformed", f"{where}: has no line `{missing} = …` with that scheme's secret")
    window = {name: _unix_seconds(named[name], where=where) for name in WINDOW if name in named}
    if len(window) == len(WINDOW) and window["not_before"] > window["accept_until"]:
        raise SecretsError("secret_window", f"{where}: not_before is later than accept_until")
    return SlotLines([first, *(named[name] for name in further)], window)


def _snapshot(path: Path) -> Snapshot:
    try:
        snapshot = tuple((name, read_secret(path / name, CONTENT_MAX_BYTES + 1)[0]) for name in file_names(path))
    except OSError:
        raise SecretsError("secrets_unreadable", f"{path}: cannot read this directory or a file of it") from None
    if not snapshot:
        raise SecretsError("secrets_empty", f"{path}: no secret in it; add a file `current` with a secret")
    return snapshot


def _slots(path: Path, snapshot: Snapshot, parse: ParseSlot[AnySlot]) -> tuple[AnySlot, ...]:
    slots = [parse(path / name, content) for name, content in snapshot]
    return tuple(sorted(slots, key=lambda slot: (_RANK.get(slot.name, 2), slot.name)))


def _named_lines(lines: list[str], *, names: Sequence[str], where: Path) -> dict[str, str]:
    named: dict[str, str] = {}
    for line in filter(None, lines):
        word, equals, text = (part.strip() for part in line.partition("="))
        if not equals or word not in names or word in named:
            known = " and ".join(f"`{name} = …`" for name in names)
            raise SecretsError("secret_line", f"{where}: after the secret, only {known} are allowed, once each")
        named[word] = text
    return named


def _unix_seconds(text: str, *, where: Path) -> float:
    try:
        if _is_instant(text):
            return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:
        pass
    raise SecretsError("secret_window", f"{where}: not_before and accept_until are instants like 2026-01-31T00:00:00Z")
