"""Standard Webhooks 1.0.0: `v1` (HMAC-SHA256) and `v1a` (ed25519) over id, timestamp and body.

The headers are `webhook-id`, `webhook-timestamp` and `webhook-signature`, or the same with the prefix `svix-`, which
Svix used before the standard; signed text, keys and elements are the same.
"""

import re
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from hmac import compare_digest

from bridge.errors import ConfigError
from bridge.proof.scheme import (
    ID,
    PUBLIC_ELEMENTS_MAX,
    PUBLIC_KEY_BYTES,
    PUBLIC_SIGNATURE_BYTES,
    SIGNATURE_MAX_BYTES,
    HmacKey,
    KeySlot,
    Proof,
    ProofKey,
    PublicKey,
    Raw,
    Scheme,
    matching_slot,
    refuse,
    refuse_mismatch,
    strict_base64,
)
from bridge.proof.timestamps import TIMESTAMP, age_words, check_age
from bridge.runtime.signing_secret import base64_bytes, shared_key

NAME = "standard_webhooks"
TOLERANCE_S = 300  # as the Svix libraries, "Verifying webhook authenticity"
_PUBLIC_PREFIX = "whpk_"
# Length of `v1,` and the base64 of an HMAC-SHA256; elements of other lengths, of which a header can have 4,000, never
# match.
_SHARED_LENGTH = 47

_is_id = ID.fullmatch
_is_timestamp = TIMESTAMP.fullmatch
# The signed text is `id.timestamp.body`, and nothing marks the end of the id: any part between two dots that looks like
# a timestamp can be read as the timestamp. Standard Webhooks 1.0.0 relies on senders to have no dot in an id
# ("Signature scheme"). The two patterns below detect a text that was split elsewhere. First, the true timestamp is at
# the end of the id, or within it, followed by the beginning of the body. Its length distinguishes it from other digits:
# Unix seconds have ten from 2001 to 2286, after at most two zeros.
_id_holds_timestamp = re.compile(rb"\.(?:[0-9]{1,12}\Z|[0-9]{10,12}\.)").search
# Second, the true timestamp is in the body, after the end of the id: `a.b.1700000000.{…}` was sent as id `a.b` and is
# read as id `a`, timestamp `b`, body `1700000000.{…}`. That part of an id has at most 196 characters: 200, less one for
# the altered id and three for two dots and a timestamp. A body that begins like JSON is not altered: a document may
# contain the text "1.2.3".
_body_holds_timestamp = re.compile(rb"[0-9]{1,12}\.|(?![{\[\"])[!-~]{0,196}\.[0-9]{10,12}\.").match


class StandardWebhooks(Scheme):
    """Verifies deliveries whose timestamp is at most `tolerance_s` seconds off; None: by any time."""

    name = NAME
    headers = frozenset(
        f"{spelling}-{part}".encode() for spelling in ("webhook", "svix") for part in ("id", "timestamp", "signature")
    )
    dated = True
    ids = "signed"
    safe = frozenset({b"webhook-id", b"webhook-timestamp", b"svix-id", b"svix-timestamp"})

    def __init__(self, tolerance_s: int | None = TOLERANCE_S) -> None:
        self._tolerance_s = tolerance_s

    def parse_key(self, text: str) -> HmacKey | PublicKey:
        """Decode `whsec_…` or `whpk_…`."""
        return parse_secret(text)

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Verify as in "Verifying webhook authenticity" of Standard Webhooks 1.0.0."""
        headers, body = raw.headers, raw.body
        webhook_id = headers.get(b"webhook-id")
        sent_at = headers.get(b"webhook-timestamp")
        signature = headers.get(b"webhook-signature")
        if webhook_id is None or sent_at is None or signature is None:
            webhook_id, sent_at, signature = _svix(headers)
        if not _is_id(webhook_id):
            refuse("id_malformed")
        if not _is_timestamp(sent_at):
            refuse("timestamp_malformed")
        if len(signature) > SIGNATURE_MAX_BYTES:
            refuse("signature_malformed")
        slot = _matching_slot(signature, b".".join((webhook_id, sent_at, body)), keys=keys, now=now)
        # The two plain tests only save most deliveries the regular expressions, a tenth of the verification time.
        if (
            slot is None
            or (b"." in webhook_id and _id_holds_timestamp(webhook_id))
            or (not body.startswith(b"{") and _body_holds_timestamp(body))
        ):
            refuse_mismatch(keys, now)
        timestamp = int(sent_at)
        check_age(timestamp, self._tolerance_s, now)
        return Proof(webhook_id.decode("ascii"), timestamp, slot.name)

    def describe(self) -> str:
        """Return the name and tolerance of the scheme."""
        return f"{NAME}, {age_words(self._tolerance_s)}"


def parse_secret(text: str) -> HmacKey | PublicKey:
    """Decode `whsec_…` or `whpk_…` strictly; `ConfigError`, without the content, for anything else."""
    if key := shared_key(text):
        return HmacKey(key)
    if text.startswith(_PUBLIC_PREFIX) and len(raw := base64_bytes(text[len(_PUBLIC_PREFIX) :])) == PUBLIC_KEY_BYTES:
        return PublicKey(raw)
    raise ConfigError("a secret is whsec_ and the base64 of 24 to 64 bytes, or whpk_ and the base64 of 32 bytes")


def _svix(headers: Mapping[bytes, bytes]) -> tuple[bytes, bytes, bytes]:
    webhook_id = headers.get(b"svix-id")
    sent_at = headers.get(b"svix-timestamp")
    signature = headers.get(b"svix-signature")
    if webhook_id is None or sent_at is None or signature is None:
        refuse("signature_missing")
    return webhook_id, sent_at, signature


def _matching_slot(signature: bytes, signed: bytes, *, keys: Sequence[KeySlot], now: float) -> KeySlot | None:
    """Try every key on every element; malformed elements, and elements of other schemes, never match."""
    elements = signature.split(b" ")
    shared = [element for element in elements if len(element) == _SHARED_LENGTH]
    public: list[bytes] = []
    if b"v1a," in signature and any(isinstance(slot.key, PublicKey) for slot in keys):
        public += [raw for element in elements if element.startswith(b"v1a,") and (raw := _public_signature(element))]
        if len(public) > PUBLIC_ELEMENTS_MAX:
            refuse("signature_malformed")

    def verifies(key: ProofKey) -> bool:
        hit = False  # all elements are compared, so that the time taken does not depend on the match
        if isinstance(key, HmacKey):
            # The encoded forms are compared, not the bytes: only the one strict encoding of the digest is equal.
            expected = b"v1," + b2a_base64(key.digest(signed), newline=False)
            for element in shared:
                hit |= compare_digest(expected, element)
        elif isinstance(key, PublicKey):
            for candidate in public:
                hit |= key.signed_by(candidate, signed)
        return hit

    return matching_slot(keys, now, verifies)


def _public_signature(element: bytes) -> bytes | None:
    raw = strict_base64(element[4:])
    return raw if len(raw) == PUBLIC_SIGNATURE_BYTES else None
