"""The interface of schemes, which verify that a delivery is from its source: input, result and keys.

A scheme checks raw bytes before anything is parsed: headers, then signature, then time. Since the signature comes
first, `timestamp_stale` and `timestamp_future` report the clock of a genuine sender; a forger only gets a mismatch.
Every key is tried on every candidate, even after a match, so the time taken does not depend on the outcome.
"""

import re
from abc import ABC, abstractmethod
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import Literal, NamedTuple, NoReturn, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.response_codes import REFUSED, UNKNOWN_KEY
from bridge.runtime.signing_secret import Slot

# The HTTP server's bound on a header field. It also bounds comparisons: 170 elements of the length of `v1` fit.
SIGNATURE_MAX_BYTES = 8190
# Ed25519 checks per delivery. One takes 0.06 ms and hashes the whole body again (0.6 ms for 256 KiB), and a forger
# chooses how many. Senders list several signatures only during rotation, with two keys. Only well-formed signatures
# count, and only if a key exists to check them.
PUBLIC_ELEMENTS_MAX = 2
PUBLIC_KEY_BYTES = 32  # RFC 8032
PUBLIC_SIGNATURE_BYTES = 64  # RFC 8032

# Allowed form of an id in a header (docs/contract.md §1).
ID = re.compile(rb"[!-~]{1,200}")

Digest = Literal["sha256", "sha512", "sha1"]
Ids = Literal["none", "unsigned", "signed"]
_DIGESTS: Mapping[Digest, type[HashAlgorithm]] = {"sha256": SHA256, "sha512": SHA512, "sha1": SHA1}


class Raw(NamedTuple):
    """A delivery before verification."""

    # Headers as received, names in lower case. `read_headers` has refused repeated headers that a scheme reads.
    headers: Mapping[bytes, bytes]
    body: bytes  # exact bytes received
    query: bytes = b""  # the query of the request target; only for a scheme that reads it
    peer: str = ""  # address of the peer; only for a scheme that reads it


class Proof(NamedTuple):
    """The result of a scheme."""

    id: str | None  # id of the delivery; None if the sender gives none
    timestamp: int | None  # Unix seconds of the sender's attempt; None if the scheme has no time
    slot: str  # name of the matching slot
    id_signed: bool = True  # the signature covers the id
    origin: str = ""  # `replay` or `import` if an operator posted it; else empty
    received_s: float | None = None  # Unix seconds of its first receipt, if an operator posted it


@dataclass(frozen=True, slots=True)
class HmacKey:
    """A shared secret that keys an HMAC."""

    secret: bytes = field(repr=False)
    digestmod: Digest = "sha256"
    _keyed: HMAC = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare a keyed HMAC, since copying it is cheaper than keying a new one."""
        object.__setattr__(self, "_keyed", HMAC(self.secret, _DIGESTS[self.digestmod]()))

    def digest(self, signed: bytes) -> bytes:
        """Return the HMAC of `signed`."""
        keyed = self._keyed.copy()
        keyed.update(signed)
        return keyed.finalize()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The sender's raw ed25519 public key."""

    raw: bytes = field(repr=False)
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_key", Ed25519PublicKey.from_public_bytes(self.raw))

    def signed_by(self, signature: bytes, signed: bytes) -> bool:
        """Return whether `signature` is a valid ed25519 signature of `signed`."""
        try:
            self._key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A secret that is itself sent."""

    secret: bytes = field(repr=False)
    _digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_digest", sha256(self.secret).digest())

    def equals(self, digest: bytes) -> bool:
        """Compare SHA-256 digests, since `compare_digest` leaks the length when lengths differ."""
        return compare_digest(self._digest, digest)


@dataclass(frozen=True, slots=True)
class ReplayKey:
    """The secret of the slot `replay`, which schemes do not try: see `bridge/proof/origin.py`."""

    secret: bytes = field(repr=False)


class TokenKey(NamedTuple):
    """A public key that verifies tokens."""

    key: object
    kid: str  # its `kid`; empty if it has none
    algorithms: frozenset[str]  # algorithms for this kind of key


@dataclass(frozen=True, slots=True)
class KeySet:
    """Public keys of a token issuer; sources may share them, since a token names its audience."""

    keys: tuple[TokenKey, ...] = field(repr=False)


# A tuple: one key for each part of a combined scheme.
ProofKey: TypeAlias = HmacKey | PublicKey | SharedSecret | ReplayKey | KeySet | tuple["ProofKey", ...]


@dataclass(frozen=True, slots=True)
class KeySlot(Slot[ProofKey]):
    """One key of a source, with its period of validity."""


class Secrets(Protocol):
    """The key slots of a source, which may change between deliveries."""

    @property
    def keys(self) -> Sequence[KeySlot]:
        """Return all slots, even if not valid now."""


@dataclass(frozen=True, slots=True)
class FixedSecrets:
    """Key slots that never change."""

    keys: tuple[KeySlot, ...]


class Scheme(ABC):
    """How deliveries of a source are verified."""

    name: str  # its configured name
    headers: frozenset[bytes] = frozenset()  # headers with credentials or signed values; repeats are refused
    joined: frozenset[bytes] = frozenset()  # other headers that it reads; repeats are joined by commas
    safe: frozenset[bytes] = frozenset()  # headers of both kinds without credentials; kept with a parked delivery
    keyed: bool = True  # it needs keys
    multiline: bool = False  # the key in a slot file may have several lines
    jwks_url: str = ""  # URL from which its keys are fetched into the slot directory
    further: tuple[str, ...] = ()  # names of further lines of a slot file, each with one more key
    reads_query: bool = False  # it needs `Raw.query`
    reads_peer: bool = False  # it needs `Raw.peer`
    dated: bool = False  # it verifies when a delivery was sent
    ids: Ids = "none"  # whether deliveries have ids, and whether a signature covers them

    @property
    def parts(self) -> "Sequence[Scheme]":
        """The schemes that it combines; otherwise only itself."""
        return (self,)

    def parse_key(self, text: str) -> ProofKey:
        """Decode the line of a slot file; `ConfigError` if it is not a key of this scheme, without its content."""
        del text
        raise ConfigError(f"{self.name} has no secret")

    def parse_keys(self, texts: Sequence[str]) -> ProofKey:
        """Decode the first line of a slot file and the lines that `further` names; raises like `parse_key`."""
        return self.parse_key(texts[0])

    @abstractmethod
    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Verify that a holder of one of the keys sent these bytes; `now` is Unix seconds.

        `keys` includes invalid ones: they take the same time and never match. For any bytes it raises only
        `DeliveryRefusedError`, with a code of `bridge/response_codes.py`.
        """

    @abstractmethod
    def describe(self) -> str:
        """Describe the scheme for operators in one line, without secrets."""


def strict_base64(text: bytes) -> bytes:
    """Decode base64 strictly; empty if invalid, also if unused bits are set."""
    try:
        raw = a2b_base64(text, strict_mode=True)
    except ValueError:
        return b""
    return raw if b2a_base64(raw, newline=False) == text else b""


def matching_slot(keys: Sequence[KeySlot], now: float, verifies: Callable[[ProofKey], bool]) -> KeySlot | None:
    """Return the first valid slot whose key verifies a delivery; every key is tried."""
    matched = None
    for slot in keys:
        if verifies(slot.key) and matched is None and slot.counts_at(now):
            matched = slot
    return matched


def refuse(code: str, *, reason: str = "") -> NoReturn:
    """Refuse a delivery that failed verification."""
    raise DeliveryRefusedError(code, reason=reason or REFUSED[code].proof)


def refuse_mismatch(keys: Sequence[KeySlot], now: float) -> NoReturn:
    """Refuse a delivery that no key verifies, with a separate reason if all keys of the source have expired."""
    refuse("signature_mismatch", reason="" if any(key.counts_at(now) for key in keys) else UNKNOWN_KEY)
