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
from collections.abc import Iterable, Mapping, Sequence
from hmac import compare_digest
from typing import Literal, NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.errors import DeliveryRefusedError
from bridge.ingress.keys import KeySlot

Code = Literal[
    "signature_missing",
    "header_duplicated",
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
    "header_duplicated": "format",
    "id_malformed": "format",
    "timestamp_malformed": "format",
    "signature_malformed": "format",
    "signature_mismatch": "mismatch",
    "timestamp_stale": "stale",
    "timestamp_future": "future",
}
UNKNOWN_KEY = "unknown_key"  # the metric's word for a source we do not know; its answer is a mismatch like any other

# As the HTTP server bounds one header field. It also bounds the comparisons: some 170 elements of `v1` fit.
SIGNATURE_MAX_BYTES = 8190
# A check of ed25519 costs 60 times an HMAC and a forger chooses how many; a sender amid a rotation signs with two keys.
PUBLIC_ELEMENTS_MAX = 4
PUBLIC_SIGNATURE_BYTES = 64  # RFC 8032

_HEADERS: Mapping[bytes, int] = {b"webhook-id": 0, b"webhook-timestamp": 1, b"webhook-signature": 2}
_is_id = re.compile(rb"[!-~]{1,200}").fullmatch
_is_timestamp = re.compile(rb"[0-9]{1,12}").fullmatch


class Proof(NamedTuple):
    """The three signed headers of a delivery, verbatim."""

    id: bytes
    timestamp: bytes
    signature: bytes


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


def read_proof(raw_headers: Iterable[tuple[bytes, bytes]]) -> Proof:
    """Pick the signed headers out of all, which must be the raw ones: a merged view hides a duplicate.

    Args:
        raw_headers: Names in any case, and values, as received.

    Raises:
        DeliveryRefusedError: One is missing, or there twice; the first is never taken for the true one.
    """
    found: list[bytes | None] = [None, None, None]
    for name, value in raw_headers:
        place = _HEADERS.get(name.lower())
        if place is not None:
            if found[place] is not None:
                _refuse("header_duplicated")
            found[place] = value
    webhook_id, timestamp, signature = found
    if webhook_id is None or timestamp is None or signature is None:
        _refuse("signature_missing")
    return Proof(webhook_id, timestamp, signature)


def verify(proof: Proof, body: bytes, *, keys: Sequence[KeySlot], tolerance_s: int | None, now: float) -> Verified:
    """Check that a holder of one of the keys signed these bytes, and did so just now.

    Args:
        proof: The signed headers, verbatim.
        body: Exact bytes received.
        keys: All slots of the source, also those outside their window, which cost the same and never match.
        tolerance_s: How far the timestamp may be off in either direction, inclusive, in whole seconds; None: any.
        now: Unix seconds.

    Raises:
        DeliveryRefusedError: With a code of `REASONS`.

    Source: Standard Webhooks 1.0.0, "Verifying webhook authenticity".
    """
    _check_form(proof)
    signed = b".".join((proof.id, proof.timestamp, body))
    slot = _matching_slot(proof.signature, signed, keys=keys, now=now)
    if slot is None:
        _refuse("signature_mismatch")
    timestamp = int(proof.timestamp)
    if tolerance_s is not None:
        age_s = math.floor(now) - timestamp  # the sender counts whole seconds, so the edge is inclusive only in them
        if age_s > tolerance_s:
            _refuse("timestamp_stale")
        if -age_s > tolerance_s:
            _refuse("timestamp_future")
    return Verified(proof.id.decode("ascii"), timestamp, slot.name)


def refuse_unknown(proof: Proof, body: bytes, *, like: Sequence[KeySlot]) -> NoReturn:
    """Refuse the delivery of an unknown source with the answer and the work of a bad signature.

    Args:
        proof: The signed headers, verbatim.
        body: Exact bytes received.
        like: Keys of any source that exists: trying them is the work to equal, and what they say is thrown away.

    Raises:
        DeliveryRefusedError: Always.
    """
    _check_form(proof)
    _matching_slot(proof.signature, b".".join((proof.id, proof.timestamp, body)), keys=like, now=math.inf)
    _refuse("signature_mismatch", reason=UNKNOWN_KEY)


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


def _check_form(proof: Proof) -> None:
    if not _is_id(proof.id):
        _refuse("id_malformed")
    if not _is_timestamp(proof.timestamp):
        _refuse("timestamp_malformed")
    if len(proof.signature) > SIGNATURE_MAX_BYTES or proof.signature.count(b"v1a,") > PUBLIC_ELEMENTS_MAX:
        _refuse("signature_malformed")


def _matching_slot(signature: bytes, signed: bytes, *, keys: Sequence[KeySlot], now: float) -> KeySlot | None:
    """Try every key on every element; whatever is malformed or of another scheme equals nothing."""
    elements = signature.split(b" ")
    public = [raw for element in elements if element.startswith(b"v1a,") and (raw := _public_signature(element))]
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
        if hit and matched is None and slot.not_before <= now <= slot.accept_until:
            matched = slot
    return matched


def _public_signature(element: bytes) -> bytes | None:
    try:
        raw = binascii.a2b_base64(element[4:], strict_mode=True)
    except ValueError:
        return None
    return raw if len(raw) == PUBLIC_SIGNATURE_BYTES else None
