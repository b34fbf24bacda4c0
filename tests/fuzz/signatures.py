"""Any three headers and body with Standard Webhooks: only deliveries signed by a key of the source are accepted."""

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Callable
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.errors import DeliveryRefusedError
from bridge.ingress.headers import check_content, header_rules, read_headers, trace_of
from bridge.ingress.parking import safe_headers
from bridge.proof.scheme import PUBLIC_ELEMENTS_MAX, HmacKey, KeySlot, PublicKey, Raw
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from tests.fuzz.choices import Choices

WORDS = (b"v1,", b"v1a,", b"v2,", b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"evt_1", b"1789000000")

Answer = TypeVar("Answer")

NOW = 1_789_000_000.25
TOLERANCE_S = 300
SCHEME = StandardWebhooks(TOLERANCE_S)
HEADER_RULES = header_rules([SCHEME])
SIZE_MAX = 1000
SHARED = {"current": b"c" * 32, "next": b"n" * 24, "former": b"f" * 64}
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
WINDOWS = {"current": (-math.inf, math.inf), "next": (NOW + 60, math.inf), "former": (-math.inf, NOW - 60)}
SLOTS = (
    *(
        KeySlot(name, HmacKey(key), not_before=WINDOWS[name][0], accept_until=WINDOWS[name][1])
        for name, key in SHARED.items()
    ),
    KeySlot("public", PublicKey(PRIVATE.public_key().public_bytes_raw())),
)
COUNTING = ("current", "public")
IDS = (b"evt_1", b"evt", b"evt.1789000000", b"", b"e" * 200, b"e" * 201, b"evt 1", b"evt.1.2")
TIMES = (
    *(b"1789000000", b"1788999700", b"1788999699", b"1789000300", b"1789000301", b"1_789", b" 1789000000", b"-1"),
    b"",
)
BODIES = (b"{}", b"", b"1789000000.{}", b"2.1789000000.{}", b'{"a":1}\n')
NAMES = (b"webhook-id", b"webhook-timestamp", b"webhook-signature")
OTHERS = (
    *(b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"traceparent", b"user-agent"),
    *(b"expect", b"Webhook-Id", b"WEBHOOK-SIGNATURE", b"x-other"),
)
REFUSALS = ("content_encoding", "content_type", "body_too_large")


def check(content: bytes) -> None:
    choices = Choices(content)
    sent = message(choices)
    webhook_id, sent_at, body = message(choices) if choices.truth() else sent
    elements = [element(choices, sent) for _ in range(choices.below(20))]
    raw = list(zip(NAMES, (webhook_id, sent_at, b" ".join(elements)), strict=True))
    while not choices.is_used_up:
        raw.insert(choices.below(len(raw) + 1), (choices.one(OTHERS), choices.chunk(60)))
        if choices.below(8) == 1:
            del raw[choices.below(len(raw))]
    names = [name.lower() for name, _ in raw]
    is_doubtful = any(names.count(name) > 1 for name in NAMES)
    heads = attempted(lambda: read_headers(raw, HEADER_RULES))
    if is_doubtful or isinstance(heads, str):
        assert is_doubtful
        assert heads == "header_duplicated"
        return
    verified = attempted(lambda: SCHEME.verify(Raw(heads, body), SLOTS, NOW))
    if isinstance(verified, str):
        assert verified == expected(heads, body)
        return
    assert expected(heads, body) == ""
    assert verified.slot in COUNTING
    # Of all that this source was made to sign there is one message; an accepted one is that, whole.
    assert (heads[b"webhook-id"], heads[b"webhook-timestamp"], body) == sent
    assert (verified.id, verified.timestamp) == (sent[0].decode(), int(sent[1]))
    check_rest(heads)


def attempted(work: Callable[[], Answer]) -> Answer | str:
    try:
        return work()
    except DeliveryRefusedError as exc:
        return exc.code


def check_rest(heads: dict[bytes, bytes]) -> None:
    """Check that the other headers of a verified delivery are accepted or refused."""
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace_of(heads))
    assert "webhook-signature" not in safe_headers(heads, SCHEME)
    if heads.get(b"content-length", b"0").isdigit():  # the HTTP parser refuses all else
        assert attempted(lambda: check_content(heads, size_max=SIZE_MAX)) in (*REFUSALS, None)


def message(choices: Choices) -> tuple[bytes, bytes, bytes]:
    """Choose an id, a time and a body, each known or any."""
    webhook_id = choices.one(IDS) if choices.truth() else choices.chunk(40)
    sent_at = choices.one(TIMES) if choices.truth() else b"%d" % (1_788_999_000 + choices.below(2000))
    return webhook_id, sent_at, choices.one(BODIES) if choices.truth() else choices.chunk(60)


def element(choices: Choices, sent: tuple[bytes, bytes, bytes]) -> bytes:
    """Choose one element of the signature header: valid, altered, or any."""
    signed = b".".join(sent)
    kind = choices.below(6)
    if kind == 0:
        good = shared_element(SHARED[choices.one(tuple(SHARED))], signed)
    elif kind == 1:
        good = b"v1a," + base64.b64encode(PRIVATE.sign(signed))
    elif kind == 2:
        return choices.chunk(100)
    elif kind == 3:
        return choices.one((b"v1,", b"v1a,", b"v2,", b"v1")) + base64.b64encode(choices.chunk(70))
    else:
        good = shared_element(choices.chunk(32), signed)
    if not choices.truth():
        return good
    at = choices.below(len(good))
    return good[:at] + choices.chunk(3) + good[at + choices.below(3) :]


def shared_element(key: bytes, signed: bytes) -> bytes:
    return b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())


def expected(heads: dict[bytes, bytes], body: bytes) -> str:
    """Return the expected code by docs/contract.md; empty if the delivery must be accepted."""
    if any(name not in heads for name in NAMES):
        return "signature_missing"
    webhook_id, sent_at, signature = (heads[name] for name in NAMES)
    elements = signature.split(b" ")
    signed = b".".join((webhook_id, sent_at, body))
    genuine = {shared_element(SHARED["current"], signed), b"v1a," + base64.b64encode(PRIVATE.sign(signed))}
    is_broken = {
        "id_malformed": not re.fullmatch(rb"[\x21-\x7e]{1,200}", webhook_id),
        "timestamp_malformed": not re.fullmatch(rb"[0-9]{1,12}", sent_at),
        "signature_malformed": len(signature) > 8190 or sum(map(is_public, elements)) > PUBLIC_ELEMENTS_MAX,
        "signature_mismatch": genuine.isdisjoint(elements) or is_ambiguous(webhook_id, body),
    }
    first = next((code for code, broken in is_broken.items() if broken), "")
    if first:
        return first
    age_s = math.floor(NOW) - int(sent_at)
    return "" if abs(age_s) <= TOLERANCE_S else "timestamp_stale" if age_s > 0 else "timestamp_future"


def is_ambiguous(webhook_id: bytes, body: bytes) -> bool:
    """Return whether a part between two dots of the signed string may be the timestamp of another split."""
    *parts, _ = body.split(b".")
    starts = [b".".join(parts[:at]) for at in range(len(parts))]
    ends_of_ids = [
        re.fullmatch(rb"[\x21-\x7e]{0,196}", start) and not start.startswith((b"{", b"[", b'"')) for start in starts
    ]
    _, *middle = webhook_id.split(b".")
    return (
        any(map(is_true_time, middle))
        or is_time(middle[-1] if middle else b"")
        or any((at == 0 and is_time(part)) or (is_true_time(part) and ends_of_ids[at]) for at, part in enumerate(parts))
    )


def is_time(part: bytes) -> bool:
    return bool(re.fullmatch(rb"[0-9]{1,12}", part))


def is_true_time(part: bytes) -> bool:
    """Return whether the digits may be the timestamp of a genuine delivery, perhaps with leading zeros."""
    return bool(re.fullmatch(rb"[0-9]{10,12}", part))


def is_public(each: bytes) -> bool:
    """Return whether it may be an ed25519 signature: strict base64 of 64 bytes."""
    try:
        raw = base64.b64decode(each[4:], validate=True)
        return each == b"v1a," + base64.b64encode(raw) and len(raw) == 64
    except ValueError:
        return False
