"""Several schemes at once: a delivery must pass all of them."""

from collections.abc import Sequence
from dataclasses import replace

from bridge.errors import DeliveryRefusedError
from bridge.proof.scheme import KeySlot, Proof, ProofKey, Raw, Scheme


class Combined(Scheme):
    """Verifies deliveries by all of its parts; the reported slot is the slot of the first part with keys.

    The first line of a slot file is the secret of the first part with keys; each further part has a named line.
    """

    def __init__(self, parts: Sequence[Scheme]) -> None:
        self._parts = tuple(parts)
        self.name = "+".join(part.name for part in parts)
        self.headers = frozenset[bytes]().union(*(part.headers for part in parts))
        self.joined = frozenset[bytes]().union(*(part.joined for part in parts))
        self.safe = frozenset[bytes]().union(*(part.safe for part in parts))
        self._keyed = [part for part in parts if part.keyed]
        self.keyed = bool(self._keyed)
        self.multiline = any(part.multiline for part in self._keyed[:1])
        self.jwks_url = next((part.jwks_url for part in parts if part.jwks_url), "")
        self.further = tuple(part.name for part in self._keyed[1:])
        self.reads_query = any(part.reads_query for part in parts)
        self.reads_peer = any(part.reads_peer for part in parts)
        self.dated = any(part.dated for part in parts)
        kinds = {part.ids for part in parts}
        self.ids = "signed" if "signed" in kinds else "unsigned" if "unsigned" in kinds else "none"

    @property
    def parts(self) -> Sequence[Scheme]:
        """The schemes, in the order of the setting."""
        return self._parts

    def parse_key(self, text: str) -> ProofKey:
        """Decode the key of the only part that has keys."""
        return self.parse_keys([text])

    def parse_keys(self, texts: Sequence[str]) -> ProofKey:
        """Decode a key for each part that has keys."""
        return tuple(part.parse_key(text) for part, text in zip(self._keyed, texts, strict=True))

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Check every part, even after a failure, so that the time taken does not depend on the outcome."""
        failed: DeliveryRefusedError | None = None
        proofs: list[Proof] = []
        for part in self.parts:
            try:
                proofs.append(part.verify(raw, self.keys_of(part, keys), now))
            except DeliveryRefusedError as exc:
                failed = failed or exc
        if failed is not None:
            raise failed
        # A signed id of any part takes precedence over an unsigned id.
        named = max(proofs, key=lambda proof: (proof.id is not None) + (proof.id is not None and proof.id_signed))
        timestamp = next((proof.timestamp for proof in proofs if proof.timestamp is not None), None)
        slot = next((proof.slot for part, proof in zip(self.parts, proofs, strict=True) if part.keyed), proofs[0].slot)
        return Proof(named.id, timestamp, slot, named.id_signed)

    def describe(self) -> str:
        """Describe each part."""
        return " + ".join(part.describe() for part in self.parts)

    def keys_of(self, part: Scheme, keys: Sequence[KeySlot]) -> list[KeySlot]:
        """Return the slots for one part, each with the part's own key."""
        if not part.keyed:
            return []
        number = self._keyed.index(part)
        return [replace(slot, key=slot.key[number]) for slot in keys if isinstance(slot.key, tuple)]
