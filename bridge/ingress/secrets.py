"""The secrets of a source: slot files that hold the keys of its scheme."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from bridge.errors import ConfigError
from bridge.ingress.origin import SLOT
from bridge.ingress.proof import KeySlot, ReplayKey, Scheme
from bridge.runtime.slot import shared_key
from bridge.runtime.slots import POLL_PERIOD_S, Outcome, SecretsError, SlotDirectory, load_slots, read_lines

SlotWord = Literal["current", "previous", "other"]


def load(path: Path, scheme: Scheme) -> tuple[KeySlot, ...]:
    """Read all slots of a directory, which hold keys of a scheme, as they stand at one moment.

    Raises:
        SecretsError: Nothing there, or a file that is no slot.
    """
    return load_slots(path, partial(parse_slot, scheme=scheme))


def senders(slots: Iterable[KeySlot]) -> list[KeySlot]:
    """Return the slots that the sender has, which leaves an operator's out."""
    return [slot for slot in slots if not isinstance(slot.key, ReplayKey)]


def slot_word(name: str) -> SlotWord:
    """Name a slot in a metric, where words must be few."""
    return "current" if name == "current" else "previous" if name == "previous" else "other"


class SecretDirectory(SlotDirectory[KeySlot]):
    """The key slots of one source, kept up to date by a worker."""

    def __init__(
        self,
        *,
        path: Path,
        scheme: Scheme,
        source: str,
        observe: Callable[[Outcome], None],
        period_s: float = POLL_PERIOD_S,
        wait: Callable[[asyncio.Event, float], Awaitable[object]] | None = None,
        check: Callable[[Sequence[KeySlot]], None] = lambda _: None,
    ) -> None:
        """Read the directory once; `scheme` says what the keys are for, the rest is as of `SlotDirectory`.

        Raises:
            SecretsError: There is no last good set to keep yet, so the process cannot start.
        """
        parse = partial(parse_slot, scheme=scheme)
        super().__init__(path, parse, source=source, observe=observe, period_s=period_s, wait=wait, check=check)

    def expires_at(self) -> float:
        """Return the Unix seconds up to which the last of the sender's slots counts; infinite if one has no end."""
        return max((slot.accept_until for slot in senders(self.keys)), default=math.inf)


def parse_slot(where: Path, content: bytes, scheme: Scheme) -> KeySlot:
    """Read the content of a slot file.

    Raises:
        SecretsError: It is none; the message names the file and nothing of its content.
    """
    if where.name == SLOT:
        (secret,), window = read_lines(where, content)
        if raw := shared_key(secret):
            return KeySlot(where.name, ReplayKey(raw), **window)
        raise SecretsError("secret_malformed", f"{where}: a secret is whsec_ and the base64 of 24 to 64 bytes")
    secrets, window = read_lines(where, content, further=scheme.further)
    try:
        key = scheme.parse_keys(secrets)
    except ConfigError as exc:
        raise SecretsError("secret_malformed", f"{where}: {exc}") from None
    return KeySlot(where.name, key, **window)
