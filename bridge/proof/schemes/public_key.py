"""An ed25519 signature of the body, or of a text around it, in a header: only the sender has the private key."""

from binascii import unhexlify
from collections.abc import Callable

from bridge.errors import ConfigError
from bridge.proof.scheme import (
    PUBLIC_ELEMENTS_MAX,
    PUBLIC_KEY_BYTES,
    PUBLIC_SIGNATURE_BYTES,
    ProofKey,
    PublicKey,
    refuse,
    strict_base64,
)
from bridge.proof.schemes.parameters import Parameters
from bridge.proof.schemes.signed_text import SignedHeader, UnprovedClaim

NAME = "ed25519"


class Ed25519(SignedHeader):
    """Verifies deliveries by an ed25519 signature in a header."""

    name = NAME

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters, title=NAME, bytes_of_signature=PUBLIC_SIGNATURE_BYTES)

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

    def verifier(self, claim: UnprovedClaim) -> Callable[[ProofKey], bool]:
        """Decode the signatures once; return a function that checks them with a key."""
        if len(claim.signatures) > PUBLIC_ELEMENTS_MAX:
            refuse("signature_malformed")
        decode = unhexlify if self.encoding == "hex" else strict_base64
        signatures = [decode(each) for each in claim.signatures]

        def verifies(key: ProofKey) -> bool:
            if not isinstance(key, PublicKey):
                return False
            hit = False
            for signature in signatures:
                hit |= key.signed_by(signature, claim.signed)
            return hit

        return verifies
