"""Sign what is sent as Standard Webhooks 1.0.0, with every secret that counts, so that receivers can rotate theirs."""

from __future__ import annotations

import math
from binascii import a2b_base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bridge.errors import ConfigError
from bridge.runtime.slots import SecretsError, read_lines

try:
    from standardwebhooks import Webhook  # noqa: TID251 - this is the door
except ModuleNotFoundError as exc:
    msg = "the consumer forward needs a library that is not installed: pip install 'drx-bridge[forward]'"
    raise ConfigError(msg) from exc

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)  # Standard Webhooks 1.0.0, "Signature scheme"


@dataclass(frozen=True, slots=True)
class SigningSlot:
    """A secret and when it signs.

    Attributes:
        name: Name of its file.
        webhook: Signs with it.
        not_before: Unix seconds from which it signs.
        accept_until: Unix seconds up to and including which it signs.
    """

    name: str
    webhook: Webhook = field(repr=False)
    not_before: float = -math.inf
    accept_until: float = math.inf


def parse_slot(where: Path, content: bytes) -> SigningSlot:
    """Read a slot file, whose first line is `whsec_…`.

    Raises:
        SecretsError: It is none; the message names the file and nothing of its content.
    """
    (secret,), window = read_lines(where, content)
    prefix, underscore, encoded = secret.partition("_")
    try:
        # Strictly, unlike the library, which passes over what is no base64 and so would sign with another key.
        key = a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except ValueError:
        key = b""
    if prefix + underscore != _PREFIX or len(key) not in _KEY_BYTES:
        text = f"{where}: a secret that signs is whsec_ and the base64 of 24 to 64 bytes"
        raise SecretsError("secret_malformed", text)
    return SigningSlot(where.name, Webhook(key), **window)


def signatures(slots: Iterable[SigningSlot], *, webhook_id: str, now: datetime, body: bytes) -> str:
    """Return the value of `webhook-signature`, one element for each slot that counts; empty if none does.

    Args:
        slots: All there are.
        webhook_id: Signed too.
        now: Time of the attempt, aware UTC: the library takes any other zone for UTC.
        body: UTF-8.
    """
    if now.tzinfo is not UTC:
        raise ValueError
    moment, text = now.timestamp(), body.decode()
    return " ".join(
        slot.webhook.sign(webhook_id, now, text) for slot in slots if slot.not_before <= moment <= slot.accept_until
    )
