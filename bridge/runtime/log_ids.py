"""Ids as keyed hashes in log lines: with the key, lines of an id can be found; without it, they reveal no id.

A delivery's id may be a vendor's number or a hash of its body, and a record key is a prescription id. All of these can
be enumerated, so a hash without a key would hide little. The key is a file, the same for every process, so that an id
has the same hash in every replica and consumer, and after a restart. A directory has one file per key: `current` is in
use, and `drx-bridge hash-id` still finds lines of the former ones.

Without a directory, each process creates a random key: equal ids have equal hashes within a process, but cannot be
looked up.
"""

import secrets
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from bridge.runtime.secret_files import SecretsError, load_slots, read_lines
from bridge.runtime.signing_secret import Slot

CURRENT = "current"
# 256 bits take 44 characters in base64 and 64 in hex; fewer than 32 are unlikely to be a random key.
KEY_MIN_CHARS = 32

IdKey: TypeAlias = Slot[bytes]
"""A key of a directory, 32 bytes; it never expires, so that its lines can be found while its file exists."""


def read_id_keys(directory: Path) -> tuple[IdKey, ...]:
    """Read all keys, `current` first; `SecretsError` if there is no `current`, or a file is not a key."""
    keys = load_slots(directory, _parse)
    if keys[0].name != CURRENT:
        raise SecretsError("secrets_empty", f"{directory}: no file `{CURRENT}`; it holds the key in use")
    return keys


def current_id_key(directory: Path | None) -> bytes:
    """Return the key in use, or a random one without a directory; raises like `read_id_keys`."""
    return secrets.token_bytes(32) if directory is None else read_id_keys(directory)[0].key


def _parse(where: Path, content: bytes) -> IdKey:
    (text,), window = read_lines(where, content)
    if len(text) < KEY_MIN_CHARS:
        raise SecretsError("secret_malformed", f"{where}: the first line must have {KEY_MIN_CHARS} characters or more")
    if window:
        raise SecretsError("secret_line", f"{where}: a key for ids has no dates; `{CURRENT}` holds the key in use")
    return Slot(where.name, sha256(text.encode()).digest())
