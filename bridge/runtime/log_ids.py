"""Ids in log lines as keyed hashes: with the key the lines of an id can be found, without it no line reveals an id.

A delivery's id may be a number of the vendor's or a hash of its body, and a record key is a prescription id. All of
these can be guessed and hashed one after the other, so a hash without a key would hide little. The key is a file, the
same for every process, so that an id has one hash at every replica, in every consumer and after a restart. A directory
holds one file per key: `current` is in use, the others are former ones, whose lines `drx-bridge hash-id` still finds.

Without a directory each process makes a random key: lines of one process about one id have the same hash, and no id can
be looked up.
"""

import secrets
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from bridge.runtime.slot import Slot
from bridge.runtime.slots import SecretsError, load_slots, read_lines

CURRENT = "current"
# 256 bits in base64 take 44 characters, in hex 64; fewer than 32 characters are hardly a random key.
KEY_MIN_CHARS = 32

IdKey: TypeAlias = Slot[bytes]
"""A key of a directory, 32 bytes; it counts for ever, since its lines are found as long as its file is there."""


def read_id_keys(directory: Path) -> tuple[IdKey, ...]:
    """Read all keys, `current` first; `SecretsError` if there is no `current`, or a file is no key."""
    keys = load_slots(directory, _parse)
    if keys[0].name != CURRENT:
        raise SecretsError("secrets_empty", f"{directory}: no file `{CURRENT}`; its key is the one in use")
    return keys


def current_id_key(directory: Path | None) -> bytes:
    """Return the key in use, or a new one where there is no directory; raises as `read_id_keys`."""
    return secrets.token_bytes(32) if directory is None else read_id_keys(directory)[0].key


def _parse(where: Path, content: bytes) -> IdKey:
    (text,), window = read_lines(where, content)
    if len(text) < KEY_MIN_CHARS:
        raise SecretsError("secret_malformed", f"{where}: the first line must have {KEY_MIN_CHARS} characters or more")
    if window:
        raise SecretsError("secret_line", f"{where}: a key for ids has no dates; `{CURRENT}` is the one in use")
    return Slot(where.name, sha256(text.encode()).digest())
