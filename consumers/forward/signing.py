"""Sign what is sent as Standard Webhooks 1.0.0, with every secret that counts, so that receivers can rotate theirs."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from bridge.runtime.slot import Slot, shared_key, sign
from bridge.runtime.slots import SecretsError, read_lines

SigningSlot: TypeAlias = Slot[bytes]
"""A secret, and when it signs."""


def parse_slot(where: Path, content: bytes) -> SigningSlot:
    """Read a slot file, whose first line is `whsec_…`; a message names the file and nothing of its content."""
    (secret,), window = read_lines(where, content)
    if key := shared_key(secret):
        return Slot(where.name, key, **window)
    raise SecretsError("secret_malformed", f"{where}: a secret that signs is whsec_ and the base64 of 24 to 64 bytes")


def signatures(slots: Iterable[SigningSlot], *, webhook_id: str, now: float, body: bytes) -> str:
    """Return `webhook-signature`, an element for each slot that counts `now`, in Unix seconds."""
    return " ".join(sign(webhook_id, int(now), body, key=slot.key) for slot in slots if slot.counts_at(now))
