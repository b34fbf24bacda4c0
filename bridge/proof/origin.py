"""Sign and verify deliveries posted by an operator: `drx-bridge unrecognized replay` and `push`.

With any scheme of the source, they are signed over origin, delivery id, first receipt, time and body. The key is
derived from a secret of the source, so there is no other secret to manage, and only those who could deliver can post.
If the bridge's secret does not suffice to deliver (ed25519, networks), the slot `replay` has the key; without it,
posting is impossible. The slot works with all schemes.
"""

import hmac
import re
from collections.abc import Sequence
from hmac import compare_digest

from bridge.proof.scheme import (
    ID,
    KeySet,
    KeySlot,
    Proof,
    ProofKey,
    PublicKey,
    Raw,
    ReplayKey,
    Scheme,
    matching_slot,
    refuse,
    refuse_mismatch,
)
from bridge.proof.timestamps import TIMESTAMP, check_age

SLOT = "replay"
# Unix microseconds of the first receipt; for an import the time of the event, or empty if the body has it.
ORIGIN, DELIVERY_ID, RECEIVED, TIME, SIGNATURE = HEADERS = (
    b"drx-origin",
    b"drx-delivery-id",
    b"drx-received",
    b"drx-timestamp",
    b"drx-signature",
)
TOLERANCE_S = 300  # as in Standard Webhooks
# Context of key derivation, so that a signature of a scheme is never valid here.
_LABEL = b"drx-bridge origin, version 1\n"
_is_receipt = re.compile(rb"[0-9]{0,17}").fullmatch


def sign_origin(
    key: ProofKey, delivery_id: str, timestamp: int, body: bytes, *, origin: str, received_us: int | None
) -> dict[str, str]:
    """Return the headers that sign a delivery with a key of `operator_keys`."""
    values = (origin, delivery_id, "" if received_us is None else str(received_us), str(timestamp))
    signature = _signature(key, b"\n".join((*(each.encode() for each in values), body)))
    return {name.decode(): value for name, value in zip(HEADERS, (*values, signature.decode()), strict=True)}


def verify_origin(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
    """Verify that the holder of a key of `operator_keys` sent these bytes; raises like `Scheme.verify`."""
    origin, delivery_id, received, timestamp, signature = (raw.headers.get(name, b"") for name in HEADERS)
    if origin not in (b"replay", b"import") or not ID.fullmatch(delivery_id):
        refuse("id_malformed")
    if not _is_receipt(received) or not TIMESTAMP.fullmatch(timestamp):
        refuse("timestamp_malformed")
    # Of the signed parts only the body can contain a line break.
    signed = b"\n".join((origin, delivery_id, received, timestamp, raw.body))
    usable = operator_keys(scheme, keys)
    matched = matching_slot(usable, now, lambda key: compare_digest(_signature(key, signed), signature))
    if matched is None:
        refuse_mismatch(usable, now)
    check_age(int(timestamp), TOLERANCE_S, now)
    received_s = min(int(received) / 1e6, now) if received else None
    id_signed = scheme.ids == "signed"  # otherwise another body with this id is another delivery, as always
    return Proof(delivery_id.decode("ascii"), int(timestamp), matched.name, id_signed, origin.decode(), received_s)


def operator_keys(scheme: Scheme, keys: Sequence[KeySlot]) -> list[KeySlot]:
    """Return the slots for an operator's posts: `replay`, else slots with a secret that suffices to deliver."""
    if own := [slot for slot in keys if isinstance(slot.key, ReplayKey)]:
        return own
    return [] if scheme.reads_peer else [slot for slot in keys if _secret(slot.key) is not None]


def _secret(key: ProofKey) -> bytes | None:
    """Return the secret of a key; None if only the sender has it."""
    if isinstance(key, tuple):
        secrets = [_secret(part) for part in key]
        return b"\n".join(each for each in secrets if each is not None) if None not in secrets else None
    return None if isinstance(key, PublicKey | KeySet) else key.secret


def _signature(key: ProofKey, signed: bytes) -> bytes:
    derived = hmac.digest(_secret(key) or b"", _LABEL, "sha256")
    return hmac.digest(derived, signed, "sha256").hex().encode()
