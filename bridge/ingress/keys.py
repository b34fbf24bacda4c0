"""The keys of a source as values: what a secret's text means, and what each key can check."""

from __future__ import annotations

import binascii
import hmac
import math
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bridge.errors import ConfigError

HMAC_KEY_BYTES = range(24, 65)  # Standard Webhooks 1.0.0, "Signature scheme"
PUBLIC_KEY_BYTES = 32  # RFC 8032


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One key of a source, either a shared secret or a public key, and when it counts.

    Attributes:
        name: Name of the slot, such as `current`.
        hmac_key: Shared secret of `v1`.
        public_key: Raw ed25519 key of `v1a`.
        not_before: Unix seconds from which the key counts.
        accept_until: Unix seconds up to and including which the key counts.
    """

    name: str
    hmac_key: bytes | None = field(default=None, repr=False)
    public_key: bytes | None = field(default=None, repr=False)
    not_before: float = -math.inf
    accept_until: float = math.inf
    _hmac: hmac.HMAC | None = field(init=False, repr=False, compare=False)
    _ed25519: Ed25519PublicKey | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Set the key up once; a copy of a keyed HMAC is cheaper than keying it for each delivery."""
        keyed = None if self.hmac_key is None else hmac.new(self.hmac_key, digestmod="sha256")
        public = None if self.public_key is None else Ed25519PublicKey.from_public_bytes(self.public_key)
        object.__setattr__(self, "_hmac", keyed)
        object.__setattr__(self, "_ed25519", public)

    def element(self, signed: bytes) -> bytes | None:
        """Return the `v1` element a holder of the shared secret would send; None without one."""
        if self._hmac is None:
            return None
        keyed = self._hmac.copy()
        keyed.update(signed)
        return b"v1," + binascii.b2a_base64(keyed.digest(), newline=False)

    def signed_by(self, signature: bytes, signed: bytes) -> bool:
        """Say whether `signature` is the ed25519 signature of `signed` by the owner of the public key."""
        if self._ed25519 is None:
            return False
        try:
            self._ed25519.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


def parse_secret(text: str) -> tuple[bytes | None, bytes | None]:
    """Decode `whsec_…` or `whpk_…` into (shared secret, None) or (None, public key), strictly.

    Raises:
        ConfigError: Neither; the message holds nothing of the text.
    """
    prefix, underscore, encoded = text.partition("_")
    try:
        key = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except ValueError:  # not ASCII, or not base64
        key = b""
    if prefix + underscore == "whsec_" and len(key) in HMAC_KEY_BYTES:
        return key, None
    if prefix + underscore == "whpk_" and len(key) == PUBLIC_KEY_BYTES:
        return None, key
    msg = "a secret is whsec_ and the base64 of 24 to 64 bytes, or whpk_ and the base64 of 32 bytes"
    raise ConfigError(msg)
