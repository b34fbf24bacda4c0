"""An HMAC of the body, or of a text around it, in a header, as sent by GitHub, Stripe, Shopify and others."""

from binascii import a2b_base64, b2a_base64, hexlify, unhexlify
from collections.abc import Callable
from hmac import compare_digest
from typing import get_args

from bridge.errors import ConfigError
from bridge.proof.scheme import Digest, HmacKey, ProofKey
from bridge.proof.schemes.parameters import Parameters
from bridge.proof.schemes.signed_text import SignedHeader, UnprovedClaim

NAME = "body_hmac"
DIGEST_BYTES = {"sha256": 32, "sha512": 64, "sha1": 20}  # FIPS 180-4
KEY_ENCODINGS = ("utf8", "hex", "base64")
KEY_MIN_BYTES = 16  # bytes; RFC 2104 recommends the digest's length, but vendors issue shorter ones


class BodyHmac(SignedHeader):
    """Verifies deliveries by an HMAC in a header."""

    name = NAME

    def __init__(self, parameters: Parameters) -> None:
        self.digest: Digest = parameters.choice("digest", get_args(Digest), "sha256")
        self.key_encoding: str = parameters.choice("key_encoding", KEY_ENCODINGS, "utf8")
        super().__init__(parameters, title=f"{NAME} {self.digest}", bytes_of_signature=DIGEST_BYTES[self.digest])
        self._is_hex = self.encoding == "hex"

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
            raise ConfigError(f"a secret of {NAME} is the {how} of at least {KEY_MIN_BYTES} bytes")
        return HmacKey(secret, self.digest)

    def verifier(self, claim: UnprovedClaim) -> Callable[[ProofKey], bool]:
        """Return a function that compares the signatures with that of a key."""

        def verifies(key: ProofKey) -> bool:
            if not isinstance(key, HmacKey):
                return False
            digest = key.digest(claim.signed)
            # Encoded forms are compared, so that only the strict encoding of the digest matches.
            expected = hexlify(digest) if self._is_hex else b2a_base64(digest, newline=False)
            hit = False
            for candidate in claim.signatures:
                hit |= compare_digest(expected, candidate)
            return hit

        return verifies
