"""Sign what is sent as Standard Webhooks 1.0.0, with every secret that counts, so that receivers can rotate theirs."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from standardwebhooks import Webhook  # noqa: TID251 - this is the door

from bridge.runtime.slot import Slot, shared_key
from bridge.runtime.slots import SecretsError, read_lines

SigningSlot: TypeAlias = Slot[Webhook]
"""A secret, as what signs with it, and when it does."""


def parse_slot(where: Path, content: bytes) -> SigningSlot:
    """Read a slot file, whose first line is `whsec_…`; a message names the file and nothing of its content."""
    (secret,), window = read_lines(where, content)
    # Not by the library, which passes over what is no base64 and so would sign with another key.
    key = shared_key(secret)
    if not key:
        text = f"{where}: a secret that signs is whsec_ and the base64 of 24 to 64 bytes"
        raise SecretsError("secret_malformed", text)
    return Slot(where.name, Webhook(key), **window)


def signatures(slots: Iterable[SigningSlot], *, webhook_id: str, now: datetime, body: bytes) -> str:
    """Return `webhook-signature`, an element for each slot that counts `now`, in UTC: the library expects that."""
    if now.tzinfo is not UTC:
        raise ValueError
    moment, text = now.timestamp(), body.decode()
    return " ".join(slot.key.sign(webhook_id, now, text) for slot in slots if slot.counts_at(moment))
