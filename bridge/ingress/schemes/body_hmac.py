"""An HMAC of the body, or of a text around it, in a header: what GitHub, Stripe, Shopify and many others send."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64, hexlify, unhexlify
from collections.abc import Sequence
from hmac import compare_digest
from typing import get_args

from bridge.errors import ConfigError
from bridge.ingress.proof import Digest, HmacKey, KeySlot, Proof, Raw, Scheme, age_words, refuse_mismatch
from bridge.ingress.schemes.parameters import Parameters
from bridge.ingress.schemes.signed_text import SignedText

NAME = "body_hmac"
DIGEST_BYTES = {"sha256": 32, "sha512": 64}  # FIPS 180-4
KEY_ENCODINGS = ("utf8", "hex", "base64")
KEY_MIN_BYTES = 16  # 128 bits; RFC 2104 asks for the length of the digest, but vendors hand out shorter ones


class BodyHmac(Scheme):
    """Proves deliveries with an HMAC in a header."""

    name = NAME

    def __init__(self, parameters: Parameters) -> None:
        self._digest: Digest = parameters.choice("digest", get_args(Digest), "sha256")
        self.key_encoding: str = parameters.choice("key_encoding", KEY_ENCODINGS, "utf8")
        self._text = SignedText(parameters, bytes_of_signature=DIGEST_BYTES[self._digest])
        self._tolerance_s = parameters.tolerance_s
        self._is_hex = self._text.encoding == "hex"
        self.headers, self.safe, self.dated = self._text.headers, self._text.safe, self._text.dated
        self.joined, self.ids = self._text.joined, self._text.ids

    def credentials(self, raw: Raw) -> int:
        """Look for the header of the signature."""
        return int(self._text.header in raw.heads)

    def parse_key(self, text: str) -> HmacKey:
        """Decode the shared secret."""
        secret = b""
        if text.isprintable():
            try:
                if self.key_encoding == "utf8":
                    secret = text.encode()
                elif self.key_encoding == "hex":
                    secret = unhexlify(text)
                else:
                    secret = a2b_base64(text, strict_mode=True)
            except ValueError:
                secret = b""
        if len(secret) < KEY_MIN_BYTES:
            how = "text" if self.key_encoding == "utf8" else self.key_encoding
            msg = f"a secret of {NAME} is the {how} of at least {KEY_MIN_BYTES} bytes"
            raise ConfigError(msg)
        return HmacKey(secret, self._digest)

    def prove(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Compare what a holder of each key would have sent with each signature that is there."""
        claim = self._text.read(raw)
        matched = None
        for slot in keys:
            key = slot.key
            if not isinstance(key, HmacKey):
                continue
            digest = key.digest(claim.signed)
            # The texts are compared, not the decoded bytes: only the one strict encoding of the digest is equal.
            expected = hexlify(digest) if self._is_hex else b2a_base64(digest, newline=False)
            hit = False
            for candidate in claim.signatures:
                hit |= compare_digest(expected, candidate)
            if hit and matched is None and slot.counts_at(now):
                matched = slot
        if matched is None or claim.ambiguous:
            refuse_mismatch(keys, now)
        return self._text.proof(claim, slot=matched.name, tolerance_s=self._tolerance_s, now=now)

    def describe(self) -> str:
        """Name header, digest and what is signed."""
        age = age_words(self._tolerance_s) if self.dated else "no time"
        return f"{NAME} {self._digest} {self._text.describe()}, {age}"
