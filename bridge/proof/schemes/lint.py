"""Find weaknesses of schemes, their settings and keys."""

from collections.abc import Iterator, Mapping, Sequence

from bridge.proof.scheme import HmacKey, KeySet, KeySlot, ProofKey, PublicKey, ReplayKey, Scheme, SharedSecret
from bridge.proof.schemes.network import Cidr, are_too_wide
from bridge.runtime.findings import Risk

# `aaaa…` and `changeme` have fewer distinct bytes, as have 16 random base64 characters with a probability of 1e-7.
DIFFERENT_BYTES_MIN = 8
# Seconds. Without a signed time, a captured delivery that is sent again is only detected by its remembered id. A
# sender's retries usually end within an hour.
WINDOW_MIN_S = 3600
SIGNING = ("body_hmac", "ed25519")
# Ed25519 (RFC 8032, 5.1): the prime of its field, and d of its curve -x² + y² = 1 + d x² y².
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P)


def weaknesses(
    scheme: Scheme, *, tolerance_s: int | None, window_s: float, tls_in_front: bool, bucket_s: int = 0
) -> Iterator[Risk]:
    """Yield the weaknesses of a source.

    `window_s`: seconds for which its ids are remembered. After `bucket_s` seconds its profile treats equal bytes
    without an id as a new delivery; 0: never.
    """
    parts = scheme.parts
    # Networks that may contain any address authenticate nobody.
    authenticating = [part for part in parts if not (isinstance(part, Cidr) and part.allows_everyone)]
    if all(isinstance(part, Cidr) for part in authenticating):
        yield Risk("cidr_alone", "an address alone does not authenticate a sender", "combine it, as in body_hmac+cidr")
    elif all(part.name == "url_token" for part in authenticating):
        yield Risk("url_token_alone", "proxies on the way log URLs", "combine it, as in url_token+cidr")
    bearers = [part.name for part in parts if part.name == "jwt" and not part.dated]
    bare = [part.name for part in parts if part.name in ("secret_header", "basic", "url_token")] + bearers
    if bare and not tls_in_front:
        text = f"{bare[0]} sends its secret, which anyone on the way can read without TLS"
        yield Risk("no_tls", text, "terminate TLS in front and set http.tls_in_front")
    if bearers and not any(part.dated or part.name in SIGNING for part in parts):
        text = "a bearer token does not cover the body, so anyone who sees it can send other bodies"
        yield Risk("unsigned_body", text, "have the sender sign the body too, or its hash: scheme_body_claim")
    if any(getattr(part, "digest", "") == "sha1" for part in parts):
        yield Risk("weak_digest", "SHA-1 is broken as a digest", "ask the sender for sha256")
    if scheme.ids == "unsigned":
        text = "no signature covers the id, so a captured delivery is new under another id"
        advice = "set scheme_unsigned_id=ignore if equal bodies are always one delivery"
        yield Risk("unsigned_id", text, advice)
    yield from _ages(scheme, parts, tolerance_s=tolerance_s, window_s=window_s, bucket_s=bucket_s)
    if any(are_too_wide(part.proxies) for part in parts if isinstance(part, Cidr)):
        text = "more than a /8 (IPv6: /7) are trusted proxies, so a sender can claim an address"
        yield Risk("every_proxy_trusted", text, "name the networks of your proxies")


def _ages(
    scheme: Scheme, parts: Sequence[Scheme], *, tolerance_s: int | None, window_s: float, bucket_s: int
) -> Iterator[Risk]:
    """Yield the weakness that a captured delivery is soon accepted again as new."""
    # The id is derived from body and time of receipt, so a late repeat has another id.
    in_buckets = bool(bucket_s) and scheme.ids == "none"
    if window_s >= WINDOW_MIN_S and not in_buckets:
        return
    new_after_s = bucket_s if in_buckets else window_s
    signs = any(part.name in SIGNING for part in parts)
    if signs and not scheme.dated and scheme.ids != "unsigned":
        text = f"no time is signed, so a captured delivery is new again after {new_after_s:.0f} s"
        yield Risk("undated", text, "have the sender sign a time")
    if scheme.dated and (tolerance_s is None or tolerance_s > new_after_s):
        text = f"a signed time may be of any age, so a captured delivery is new again after {new_after_s:.0f} s"
        yield Risk("tolerance_off", text, f"set tolerance_s to {min(300, new_after_s):.0f} or less")


def shared_keys(keys: Mapping[str, Sequence[KeySlot]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of sources that share a key: a delivery signed for one could be sent to the other."""
    owners: dict[bytes, str] = {}
    for source, slots in keys.items():
        for secret in {secret for slot in slots for secret in _secrets(slot.key)}:
            owner = owners.setdefault(secret, source)
            if owner != source:
                yield owner, source


def guessable(slots: Sequence[KeySlot]) -> Iterator[str]:
    """Yield a problem for each key that can be guessed or whose signatures anybody can forge."""
    for slot in slots:
        for key in _parts(slot.key):
            if isinstance(key, KeySet):
                continue
            if isinstance(key, PublicKey):
                if is_small_order(key.raw):
                    yield f"{slot.name}: anybody can sign for this public key, a point of small order"
            elif len(set(key.secret)) < DIFFERENT_BYTES_MIN:
                yield f"{slot.name}: a secret of fewer than {DIFFERENT_BYTES_MIN} different bytes can be guessed"


def is_small_order(public_key: bytes) -> bool:
    """Return whether an ed25519 key is one of the 14 encodings of a point of order 1, 2, 4 or 8.

    Signatures that it verifies can be made without a private key. Points of order 1, 2 and 4 have y = 1, -1 and 0;
    doubling a point of order 8 gives one of order 4, so that d y⁴ + 2 y² - 1 = 0.
    """
    y = int.from_bytes(public_key, "little") % 2**255
    return y * (y * y - 1) * (_D * y**4 + 2 * y * y - 1) % _P == 0


def _secrets(key: ProofKey) -> Iterator[bytes]:
    for part in _parts(key):
        if not isinstance(part, KeySet):
            yield part.raw if isinstance(part, PublicKey) else part.secret


def _parts(key: ProofKey) -> Iterator[HmacKey | PublicKey | SharedSecret | ReplayKey | KeySet]:
    if isinstance(key, tuple):
        for part in key:
            yield from _parts(part)
    else:
        yield key
