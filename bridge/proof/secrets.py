"""Secrets of a source: slot files with the keys of its scheme."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from bridge.errors import ConfigError
from bridge.proof.origin import SLOT
from bridge.proof.scheme import KeySlot, ReplayKey, Scheme
from bridge.runtime.secret_files import (
    CONTENT_MAX_BYTES,
    FILE_MAX_BYTES,
    WINDOW,
    ParseSlot,
    SecretsError,
    load_slots,
    read_lines,
)
from bridge.runtime.signing_secret import shared_key


def load(path: Path, scheme: Scheme) -> tuple[KeySlot, ...]:
    """Read a consistent snapshot of all slots of a directory; `SecretsError` if it has none or one is invalid."""
    return load_slots(path, slots_of(scheme))


def senders(slots: Iterable[KeySlot]) -> list[KeySlot]:
    """Return the slots of the sender, without the operator's."""
    return [slot for slot in slots if not isinstance(slot.key, ReplayKey)]


def slots_of(scheme: Scheme) -> ParseSlot[KeySlot]:
    """Return a parser of slot files with keys of a scheme."""
    return partial(parse_slot, scheme=scheme)


def parse_slot(where: Path, content: bytes, scheme: Scheme) -> KeySlot:
    """Parse the content of a slot file; `SecretsError` names the file, without its content."""
    if where.name == SLOT:
        (secret,), window = read_lines(where, content)
        if raw := shared_key(secret):
            return KeySlot(where.name, ReplayKey(raw), **window)
        raise SecretsError("secret_malformed", f"{where}: a secret is whsec_ and the base64 of 24 to 64 bytes")
    bytes_max = CONTENT_MAX_BYTES if scheme.multiline else FILE_MAX_BYTES
    if scheme.multiline:
        content = _one_line(content, names=scheme.further)
    secrets, window = read_lines(where, content, further=scheme.further, bytes_max=bytes_max)
    try:
        key = scheme.parse_keys(secrets)
    except ConfigError as exc:
        raise SecretsError("secret_malformed", f"{where}: {exc}") from None
    return KeySlot(where.name, key, **window)


def _one_line(content: bytes, *, names: Iterable[str]) -> bytes:
    """Join the lines of a key (all before the first `<name> = …`) by tabs."""
    lines = [line.strip() for line in content.split(b"\n")]
    settings = tuple(f"{name} = ".encode() for name in (*names, *WINDOW))
    end = next((at for at, line in enumerate(lines) if line.startswith(settings)), len(lines))
    return b"\n".join((b"\t".join(lines[:end]), *lines[end:]))
