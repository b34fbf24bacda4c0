"""A secret with its period of validity, its text form, and signing with it; pure."""

import hmac
import math
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

AnyKey = TypeVar("AnyKey")

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)  # Standard Webhooks 1.0.0, "Signature scheme"


@dataclass(frozen=True, slots=True)
class Slot(Generic[AnyKey]):
    """A named key and its period of validity."""

    name: str  # name of the slot, such as `current`
    key: AnyKey = field(repr=False)  # signs, or checks signatures
    not_before: float = -math.inf  # Unix seconds from which the key is valid
    accept_until: float = math.inf  # Unix seconds until which, inclusively, the key is valid

    def counts_at(self, now: float) -> bool:
        """Return whether the key is valid at `now`, in Unix seconds."""
        return self.not_before <= now <= self.accept_until


def expires_at(slots: Iterable[Slot[Any]]) -> float:
    """Return the Unix seconds when the last of the slots expires; infinity if one never does."""
    return max((slot.accept_until for slot in slots), default=math.inf)


def shared_key(text: str) -> bytes:
    """Decode `whsec_…` of Standard Webhooks strictly; empty if invalid."""
    prefix, encoded = text[: len(_PREFIX)], text[len(_PREFIX) :]
    key = base64_bytes(encoded)
    return key if prefix == _PREFIX and len(key) in _KEY_BYTES else b""


def base64_bytes(text: str) -> bytes:
    """Decode base64; empty if invalid."""
    try:
        return a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        return b""


def sign(webhook_id: str, timestamp: int, body: bytes, *, key: bytes | Ed25519PrivateKey) -> str:
    """Return a signature element of Standard Webhooks 1.0.0: `v1` with a shared secret, `v1a` with a private key."""
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    if isinstance(key, bytes):
        scheme, signature = "v1", hmac.digest(key, signed, "sha256")
    else:
        scheme, signature = "v1a", key.sign(signed)
    return f"{scheme},{b2a_base64(signature, newline=False).decode('ascii')}"
