"""Prove that a delivery came from its source: Standard Webhooks `v1` (HMAC-SHA256) and `v1a` (ed25519), on bytes.

The order is headers, signature, time. The signature comes before the time so that `timestamp_stale` and
`timestamp_future` speak of a genuine sender's clock: a forger learns and counts as nothing but a mismatch.
Every key is tried against every element and nothing stops at a match, so the work does not depend on the outcome.
"""

from __future__ import annotations

import binascii
import hmac
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from typing import Literal, NamedTuple, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bridge.errors import ConfigError, DeliveryRefusedError

Code = Literal[
    "signature_missing",
    "id_malformed",
    "timestamp_malformed",
    "signature_malformed",
    "signature_mismatch",
    "timestamp_stale",
    "timestamp_future",
]

# The whole closed list of answers, each with the word its metric carries.
REASONS: Mapping[Code, str] = {
    "signature_missing": "missing",
    "id_malformed": "format",
    "timestamp_malformed": "format",
    "signature_malformed": "format",
    "signature_mismatch": "mismatch",
    "timestamp_stale": "stale",
    "timestamp_future": "future",
}
UNKNOWN_KEY = "unknown_key"  # what the metric says of a mismatch when no key counts, as for a source we do not know

# As the HTTP server bounds one header field. It also bounds the comparisons: some 170 elements of `v1` fit.
SIGNATURE_MAX_BYTES = 8190
# A check of ed25519 hashes the whole body again (0.6 ms for 256 KiB) and a forger chooses how many: 16 of them held the
# event loop for 10 ms. Standard Webhooks lists several signatures for rotation only, so two keys, and as many to spare.
# Only what could be a signature counts, and only where there is a key to check it with.
PUBLIC_ELEMENTS_MAX = 4
HMAC_KEY_BYTES = range(24, 65)  # Standard Webhooks 1.0.0, "Signature scheme"
PUBLIC_KEY_BYTES = 32  # RFC 8032
PUBLIC_SIGNATURE_BYTES = 64  # RFC 8032

_is_id = re.compile(rb"[!-~]{1,200}").fullmatch
_is_timestamp = re.compile(rb"[0-9]{1,12}").fullmatch
# What is signed is `id.timestamp.body`, and nothing in it says where the id ends: any part between two dots that looks
# like a timestamp can be read as the timestamp. Standard Webhooks 1.0.0 leaves it to senders to have no dot in an id
# ("Signature scheme"). These two are the signs of a text that was split in another place than its sender did.
# The true timestamp has become the end of the id, or a part of it with the beginning of the body behind. There it is
# told from other digits by its length: unix seconds have ten from 2001 to 2286, and up to two zeros before them.
_id_holds_timestamp = re.compile(rb"\.(?:[0-9]{1,12}\Z|[0-9]{10,12}\.)").search
# The true timestamp has become part of the body, with the end of the id before it: `a.b.1700000000.{…}` was sent as id
# `a.b` and is read as id `a`, timestamp `b`, body `1700000000.{…}`. What of an id can stand there has 196 characters at
# most: 200, less one for the altered id and three for the two dots and a timestamp. Where the body begins like JSON it
# is no id: a document with the text "1.2.3" in it is no altered delivery.
_body_holds_timestamp = re.compile(rb"[0-9]{1,12}\.|(?![{\[\"])[!-~]{0,196}\.[0-9]{10,12}\.").match


class Verified(NamedTuple):
    """What a good signature proves.

    Attributes:
        id: The webhook id.
        timestamp: Unix seconds of the sender's attempt.
        slot: Name of the slot whose key matched.
    """

    id: str
    timestamp: int
    slot: str


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

    def counts_at(self, now: float) -> bool:
        """Say whether `now`, in unix seconds, is in the window."""
        return self.not_before <= now <= self.accept_until

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


def verify(
    heads: Mapping[bytes, bytes], body: bytes, *, keys: Sequence[KeySlot], tolerance_s: int | None, now: float
) -> Verified:
    """Check that a holder of one of the keys signed these bytes, and did so just now.

    Args:
        heads: Headers as received, names in lower case; `read_heads` has refused a duplicate of the three.
        body: Exact bytes received.
        keys: All slots of the source, also those outside their window, which cost the same and never match.
        tolerance_s: How far the timestamp may be off in either direction, inclusive, in whole seconds; None: any.
        now: Unix seconds.

    Raises:
        DeliveryRefusedError: With a code and a reason of `REASONS`.

    Source: Standard Webhooks 1.0.0, "Verifying webhook authenticity".
    """
    webhook_id = heads.get(b"webhook-id")
    sent_at = heads.get(b"webhook-timestamp")
    signature = heads.get(b"webhook-signature")
    if webhook_id is None or sent_at is None or signature is None:
        _refuse("signature_missing")
    if not _is_id(webhook_id):
        _refuse("id_malformed")
    if not _is_timestamp(sent_at):
        _refuse("timestamp_malformed")
    if len(signature) > SIGNATURE_MAX_BYTES:
        _refuse("signature_malformed")
    slot = _matching_slot(signature, b".".join((webhook_id, sent_at, body)), keys=keys, now=now)
    if slot is None or _id_holds_timestamp(webhook_id) or _body_holds_timestamp(body):
        known = any(key.counts_at(now) for key in keys)
        _refuse("signature_mismatch", reason="" if known else UNKNOWN_KEY)
    timestamp = int(sent_at)
    if tolerance_s is not None:
        _check_age(math.floor(now) - timestamp, tolerance_s)
    return Verified(webhook_id.decode("ascii"), timestamp, slot.name)


def decoys(keys: Sequence[KeySlot]) -> tuple[KeySlot, ...]:
    """Return keys that cost what `keys` cost and never count: those of a source we do not know."""
    return tuple(replace(slot, accept_until=-math.inf) for slot in keys)


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


def sign(webhook_id: str, timestamp: int, body: bytes, *, key: bytes | Ed25519PrivateKey) -> str:
    """Return the sender's signature element: `v1` with a shared secret, `v1a` with a private key."""
    signed = b".".join((webhook_id.encode(), str(timestamp).encode(), body))
    if isinstance(key, bytes):
        scheme, signature = "v1", hmac.digest(key, signed, "sha256")
    else:
        scheme, signature = "v1a", key.sign(signed)
    return f"{scheme},{binascii.b2a_base64(signature, newline=False).decode('ascii')}"


def _refuse(code: Code, *, reason: str = "") -> NoReturn:
    raise DeliveryRefusedError(code, reason=reason or REASONS[code])


def _check_age(age_s: int, tolerance_s: int) -> None:
    """Bound the age in whole seconds, as the sender counts: in fractions the inclusive edge could never be met."""
    if age_s > tolerance_s:
        _refuse("timestamp_stale")
    if -age_s > tolerance_s:
        _refuse("timestamp_future")


def _matching_slot(signature: bytes, signed: bytes, *, keys: Sequence[KeySlot], now: float) -> KeySlot | None:
    """Try every key on every element; whatever is malformed or of another scheme equals nothing."""
    elements = signature.split(b" ")
    public = [raw for element in elements if element.startswith(b"v1a,") and (raw := _public_signature(element))]
    if len(public) > PUBLIC_ELEMENTS_MAX and any(slot.public_key for slot in keys):
        _refuse("signature_malformed")
    matched = None
    for slot in keys:
        hit = False
        expected = slot.element(signed)
        if expected is not None:
            # The texts are compared, not the decoded bytes: only the one strict encoding of the digest is equal.
            for element in elements:
                hit |= compare_digest(expected, element)
        for candidate in public:
            hit |= slot.signed_by(candidate, signed)
        if hit and matched is None and slot.counts_at(now):
            matched = slot
    return matched


def _public_signature(element: bytes) -> bytes | None:
    try:
        raw = binascii.a2b_base64(element[4:], strict_mode=True)
    except ValueError:
        return None
    return raw if len(raw) == PUBLIC_SIGNATURE_BYTES else None
