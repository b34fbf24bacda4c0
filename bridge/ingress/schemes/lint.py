"""Weak combinations of schemes and settings, which a start refuses unless the operator accepts them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from bridge.ingress.proof import HmacKey, Key, KeySlot, PublicKey, Scheme, SharedSecret
from bridge.ingress.schemes.body_hmac import BodyHmac
from bridge.ingress.schemes.combined import Combined
from bridge.ingress.schemes.network import Cidr, are_too_wide
from bridge.ingress.schemes.public_key import Ed25519
from bridge.ingress.schemes.shared import Basic, SecretHeader, UrlToken

WeaknessName = Literal[
    "cidr_alone",
    "url_token_alone",
    "no_tls",
    "unsigned_id",
    "undated",
    "tolerance_off",
    "every_proxy_trusted",
    "shared_key",
]
NAMES: tuple[WeaknessName, ...] = get_args(WeaknessName)
# Where no signed time bounds the age of a delivery, only the memory for ids notices a captured one that is sent again.
# An hour outlasts what a sender's own retries of one delivery usually take, so that a repeat is known as one.
WINDOW_MIN_S = 3600


class Weakness(NamedTuple):
    """One of `NAMES`, in words that follow the name of the source, and what to do instead."""

    name: WeaknessName
    says: str
    advice: str


def weaknesses(
    scheme: Scheme, *, tolerance_s: int | None, window_s: float, tls_in_front: bool, bucket_s: int = 0
) -> Iterator[Weakness]:
    """Yield what is weak about a source.

    Args:
        scheme: Its scheme.
        tolerance_s: How far a signed time may be off.
        window_s: How long its ids are remembered.
        tls_in_front: Deliveries come through a proxy that ends TLS.
        bucket_s: After how long its profile takes equal bytes without an id as another delivery; 0: never.
    """
    parts: Sequence[Scheme] = scheme.parts if isinstance(scheme, Combined) else (scheme,)
    # Networks that may hold every address prove nothing.
    proving = [part for part in parts if not (isinstance(part, Cidr) and part.allows_everyone)]
    if all(isinstance(part, Cidr) for part in proving):
        yield Weakness("cidr_alone", "an address alone proves no origin", "combine it, as in body_hmac+cidr")
    elif all(isinstance(part, UrlToken) for part in proving):
        yield Weakness("url_token_alone", "a URL is logged on its way", "combine it, as in url_token+cidr")
    bare = [part.name for part in parts if isinstance(part, (SecretHeader, Basic, UrlToken))]
    if bare and not tls_in_front:
        says = f"{bare[0]} sends its secret, which anyone on the way can read without TLS"
        yield Weakness("no_tls", says, "end TLS in front and set http.tls_in_front")
    if scheme.ids == "unsigned":
        says = "no signature covers the id, so a captured delivery is new under another id"
        advice = "set scheme_unsigned_id=ignore if equal bodies are always one delivery"
        yield Weakness("unsigned_id", says, advice)
    yield from _ages(scheme, parts, tolerance_s=tolerance_s, window_s=window_s, bucket_s=bucket_s)
    if any(are_too_wide(part.proxies) for part in parts if isinstance(part, Cidr)):
        says = "more than a /8 (IPv6: /7) are trusted proxies, so a sender can claim an address"
        yield Weakness("every_proxy_trusted", says, "name the networks of your proxies")


def _ages(
    scheme: Scheme, parts: Sequence[Scheme], *, tolerance_s: int | None, window_s: float, bucket_s: int
) -> Iterator[Weakness]:
    """Yield that a captured delivery can be sent again later as a new one."""
    signs = any(isinstance(part, (BodyHmac, Ed25519)) for part in parts)
    if bucket_s and scheme.ids == "none":
        # The id is the body's and the time's of receipt: no memory, here or of a consumer, knows it after two buckets.
        if signs and not scheme.dated:
            says = f"no time is signed and equal bytes are a new fact after {bucket_s} s, so a captured delivery is too"
            yield Weakness("undated", says, "have the sender sign a time or an id")
        if scheme.dated and (tolerance_s is None or tolerance_s > bucket_s):
            says = f"a time may be off by more than the {bucket_s} s after which equal bytes are a new fact"
            yield Weakness("tolerance_off", says, f"set tolerance_s to {bucket_s} or less")
        return
    if window_s >= WINDOW_MIN_S:
        return
    if signs and not scheme.dated:
        says = f"no time is signed and ids are forgotten after {window_s:.0f} s, so a captured delivery is new again"
        yield Weakness("undated", says, f"set dedupe_window_s to {WINDOW_MIN_S} or more")
    if scheme.dated and tolerance_s is None:
        says = f"the time is not checked and ids are forgotten after {window_s:.0f} s"
        yield Weakness("tolerance_off", says, f"set tolerance_s, or dedupe_window_s to {WINDOW_MIN_S} or more")


def shared_keys(keys: Mapping[str, Sequence[KeySlot]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of sources that have a key in common: what is signed for one could be sent to the other."""
    owners: dict[bytes, str] = {}
    for source, slots in keys.items():
        for secret in {secret for slot in slots for secret in _secrets(slot.key)}:
            owner = owners.setdefault(secret, source)
            if owner != source:
                yield owner, source


def _secrets(key: Key) -> Iterator[bytes]:
    match key:
        case HmacKey() | SharedSecret():
            yield key.secret
        case PublicKey():
            yield key.raw
        case _:
            for part in key:
                yield from _secrets(part)
