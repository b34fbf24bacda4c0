"""An ed25519 signature of the body, or of a text around it, in a header: only the sender has the key that signs."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence

from bridge.errors import ConfigError
from bridge.ingress.proof import (
    PUBLIC_ELEMENTS_MAX,
    PUBLIC_KEY_BYTES,
    PUBLIC_SIGNATURE_BYTES,
    KeySlot,
    Proof,
    PublicKey,
    Raw,
    Scheme,
    age_words,
    refuse,
    refuse_mismatch,
    strict_base64,
)
from bridge.ingress.schemes.parameters import Parameters
from bridge.ingress.schemes.signed_text import SignedText

NAME = "ed25519"


class Ed25519(Scheme):
    """Proves deliveries with an ed25519 signature in a header."""

    name = NAME

    def __init__(self, parameters: Parameters) -> None:
        self._text = SignedText(parameters, bytes_of_signature=PUBLIC_SIGNATURE_BYTES)
        self._tolerance_s = parameters.tolerance_s
        self.headers, self.safe, self.dated = self._text.headers, self._text.safe, self._text.dated
        self.joined, self.ids = self._text.joined, self._text.ids

    def credentials(self, raw: Raw) -> int:
        """Look for the header of the signature."""
        return int(self._text.header in raw.heads)

    def parse_key(self, text: str) -> PublicKey:
        """Decode the public key, from hex or base64."""
        for decode in (unhexlify, strict_base64):
            try:
                raw = decode(text.encode("ascii"))
            except ValueError:
                continue
            if len(raw) == PUBLIC_KEY_BYTES:
                return PublicKey(raw)
        msg = f"a key of {NAME} is the hex or the base64 of the {PUBLIC_KEY_BYTES} bytes of the sender's public key"
        raise ConfigError(msg)

    def prove(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Check each signature that is there with each key."""
        claim = self._text.read(raw)
        if len(claim.signatures) > PUBLIC_ELEMENTS_MAX:
            refuse("signature_malformed")
        decode = unhexlify if self._text.encoding == "hex" else strict_base64
        signatures = [decode(each) for each in claim.signatures]
        matched = None
        for slot in keys:
            key = slot.key
            if not isinstance(key, PublicKey):
                continue
            hit = False
            for signature in signatures:
                hit |= key.signed_by(signature, claim.signed)
            if hit and matched is None and slot.counts_at(now):
                matched = slot
        if matched is None or claim.ambiguous:
            refuse_mismatch(keys, now)
        return self._text.proof(claim, slot=matched.name, tolerance_s=self._tolerance_s, now=now)

    def describe(self) -> str:
        """Name the header and what is signed."""
        age = age_words(self._tolerance_s) if self.dated else "no time"
        return f"{NAME} {self._text.describe()}, {age}"
