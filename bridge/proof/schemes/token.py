"""A signed token in a header (JWT, RFC 7519), issued by an identity provider for a limited time.

A bearer token does not cover the body, so anyone who sees it can send other bodies. A token with a claim that has the
hash of the body is as strong as a signature. Keys come only from slots, never from the token: `kid` selects among them,
and the kind of a key determines the allowed algorithms.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from json import loads
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWTError
from jwt.algorithms import get_default_algorithms

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.proof.scheme import (
    ID,
    HmacKey,
    KeySet,
    KeySlot,
    Proof,
    ProofKey,
    Raw,
    Scheme,
    TokenKey,
    matching_slot,
    refuse,
    refuse_mismatch,
)
from bridge.proof.schemes.parameters import ParameterError, Parameters
from bridge.proof.schemes.shared_secret import credential
from bridge.proof.timestamps import check_age

NAME = "jwt"
PUBLIC_ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
ALGORITHMS = (*PUBLIC_ALGORITHMS, "HS256")
TIME_MAX = 1e12  # twelve digits, as in any timestamp
RSA_MIN_BITS = 2048  # RFC 7518, 3.3
SECRET_MIN_BYTES = 32  # RFC 7518, 3.2
_CHECKS = get_default_algorithms()
_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_WRONG = {
    "id_malformed": "no valid id",
    "timestamp_malformed": "no valid time",
    "timestamp_stale": "past",
    "timestamp_future": "in the future",
}
_is_url = re.compile(r"(https://|http://(127\.0\.0\.1|localhost)[:/])[!-~]{1,500}").fullmatch


class Jwt(Scheme):
    """Verifies deliveries by a token of an issuer for our audience."""

    name = NAME
    multiline = True

    def __init__(self, parameters: Parameters) -> None:
        if parameters.tolerance_s is None:
            raise ParameterError("tolerance_s", "must be a number for jwt, whose tokens expire")
        self._tolerance_s = parameters.tolerance_s
        self.header = parameters.header("header", "authorization")
        self.headers = frozenset({self.header})
        self.word = b"Bearer" if self.header == b"authorization" else b""
        self.issuer, self.audience = parameters.text("issuer"), parameters.text("audience")
        self.algorithms = parameters.names("algorithms", ALGORITHMS, ",".join(PUBLIC_ALGORITHMS))
        pairs = [each.strip().partition("=") for each in parameters.text("claims", "").split(",") if each.strip()]
        if not all(name and text for name, _, text in pairs):
            raise parameters.error("claims", "must be NAME=VALUE, several separated by commas")
        self.claims = {name: text for name, _, text in pairs}
        self.body_claim, self.id_claim = parameters.text("body_claim", ""), parameters.text("id_claim", "")
        self.jwks_url = parameters.text("jwks_url", "")
        if self.jwks_url and not _is_url(self.jwks_url):
            raise parameters.error("jwks_url", "must be an https:// URL; http:// only for this machine")
        self.dated = bool(self.body_claim)
        self.ids = "signed" if self.id_claim else "none"

    def parse_key(self, text: str) -> ProofKey:
        """Decode a key set (RFC 7517), a public key in PEM, or a secret of HS256; tabs separate lines."""
        found: list[TokenKey] = []
        with suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError, PyJWTError):
            if text.startswith("{"):
                for each in loads(text)["keys"]:
                    with suppress(PyJWTError):  # keys of other kinds are ignored
                        if each.get("use") in {None, "sig"}:
                            found.append(_token_key(PyJWK(each).key, each.get("kid"), each.get("alg")))
            elif text.startswith("-----BEGIN "):
                found = [_token_key(load_pem_public_key(text.replace("\t", "\n").encode()))]
            elif "HS256" in self.algorithms and len(text.encode()) >= SECRET_MIN_BYTES:
                return HmacKey(text.encode())
        if fitting := tuple(each for each in found if each.algorithms):
            return KeySet(fitting)
        kinds = f"RSA of {RSA_MIN_BITS} bits, P-256 or ed25519"
        secret = f"if scheme_algorithms names HS256, a text of {SECRET_MIN_BYTES} bytes"
        raise ConfigError(f"keys of {NAME} are public ones ({kinds}), as a JWKS document or one in PEM; or, {secret}")

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Check the token's signature, then its claims."""
        head, claims, signed, digest = self._read(raw)
        # `crit` names extensions that must be understood (RFC 7515, 4.1.11), such as an unencoded payload.
        if str(head.get("alg")) not in self.algorithms or "crit" in head or not claims or not digest:
            refuse("signature_malformed")
        matched = matching_slot(keys, now, partial(_verifies, head, signed, digest))
        if matched is None or self._differing(claims, raw.body):
            refuse_mismatch(keys, now)
        return Proof(self._id(claims), self._check_times(claims, now), matched.name)

    def faults(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Iterator[str]:
        """Yield why a token is refused, for an operator: names of its claims, and values of the settings only."""
        head, claims, _, _ = self._read(raw)
        algorithm, kid = str(head.get("alg")), head.get("kid")
        valid = [key for slot in keys if slot.counts_at(now) for key in _token_keys(slot.key)]
        fitting = [key for key in valid if algorithm in key.algorithms]
        if algorithm not in self.algorithms:
            yield f"alg is not one of {', '.join(sorted(self.algorithms))}"
        elif not fitting:
            yield "no valid key is for its alg"
        elif not any(_is_named(key, kid) for key in fitting):
            yield "no valid key has its kid"
        yield from (f"{name} is not {text}" for name, text in self._differing(claims, raw.body).items())
        checks: list[tuple[str, Callable[[], object]]] = [(self.id_claim, partial(self._id, claims))]
        for name in ("exp", "nbf", "iat"):
            others = {each: now for each in ("exp", "iat") if each != name}
            own = {name: claims[name]} if name in claims else {}
            checks.append((name, partial(self._check_times, others | own, now)))
        for name, check in checks:
            try:
                check()
            except DeliveryRefusedError as exc:
                yield f"{name} is {_WRONG[exc.code]}"

    def _read(self, raw: Raw) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
        """Return header, claims, signed text and signature of a token; empty if they cannot be decoded."""
        token = credential(raw, self.header, self.word, _TOKEN)
        signed, _, signature = token.rpartition(b".")
        head, claims = (_document(each) for each in signed.split(b"."))
        return head, claims, signed, _decoded(signature)

    def describe(self) -> str:
        """Describe the header, issuer and audience, and whether tokens cover the body."""
        covers = f"with the body's hash in {self.body_claim}" if self.body_claim else "bearer"
        return f"{NAME} in {self.header.decode()}, {covers}, of {self.issuer} for {self.audience}"

    def _differing(self, claims: Mapping[str, Any], body: bytes) -> dict[str, str]:
        """Return the expected values of the claims that have others."""
        audience = claims.get("aud")
        is_ours = audience == self.audience or (isinstance(audience, list) and self.audience in audience)
        expected = {"iss": self.issuer, **self.claims}
        if self.body_claim:
            expected[self.body_claim] = sha256(body).hexdigest()
        wrong = {name: text for name, text in expected.items() if _text(claims.get(name)) != text}
        return wrong if is_ours else wrong | {"aud": self.audience}

    def _check_times(self, claims: Mapping[str, Any], now: float) -> int | None:
        """Check `exp`, `nbf` and `iat`; return the time of issue if that is the time of the delivery."""
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
        if (
            any(type(each) not in {int, float} or not 0 <= each < TIME_MAX for each in times.values())
            or "exp" not in times
        ):
            refuse("timestamp_malformed")
        if now > times["exp"] + self._tolerance_s:
            refuse("timestamp_stale")
        if any(now < times.get(name, 0) - self._tolerance_s for name in ("nbf", "iat")):
            refuse("timestamp_future")
        if not self.dated:
            return None
        if "iat" not in times:
            refuse("timestamp_malformed")
        check_age(int(times["iat"]), self._tolerance_s, now)
        return int(times["iat"])

    def _id(self, claims: Mapping[str, Any]) -> str | None:
        if not self.id_claim:
            return None
        found = claims.get(self.id_claim)
        if not isinstance(found, str) or not ID.fullmatch(found.encode("utf-8", "surrogatepass")):
            refuse("id_malformed")
        return found


def _token_key(key: object, kid: object = None, algorithm: object = None) -> TokenKey:
    """Return a public key with the algorithms of its kind, to prevent algorithm confusion."""
    fitting = set[str]()
    if isinstance(key, RSAPublicKey) and key.key_size >= RSA_MIN_BITS:
        fitting = {"RS256", "PS256"}
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        fitting = {"ES256"}
    elif isinstance(key, Ed25519PublicKey):
        fitting = {"EdDSA"}
    return TokenKey(
        key, kid if isinstance(kid, str) else "", frozenset(fitting & {algorithm} if algorithm else fitting)
    )


def _token_keys(key: ProofKey) -> Sequence[TokenKey]:
    if isinstance(key, HmacKey):
        return (TokenKey(key, "", frozenset({"HS256"})),)
    return key.keys if isinstance(key, KeySet) else ()


def _is_named(key: TokenKey, kid: object) -> bool:
    return not key.kid or kid is None or kid == key.kid


def _verifies(head: Mapping[str, Any], signed: bytes, signature: bytes, key: ProofKey) -> bool:
    if isinstance(key, HmacKey):
        return head["alg"] == "HS256" and compare_digest(key.digest(signed), signature)
    checker: Any = _CHECKS[head["alg"]]
    fitting = (each for each in _token_keys(key) if head["alg"] in each.algorithms and _is_named(each, head.get("kid")))
    return any(checker.verify(signed, each.key, signature) for each in fitting)


def _decoded(text: bytes) -> bytes:
    """Decode base64url without padding; empty if invalid, also if unused bits are set."""
    raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4)) if len(text) % 4 != 1 else b""
    return raw if urlsafe_b64encode(raw).rstrip(b"=") == text else b""


def _document(text: bytes) -> dict[str, Any]:
    try:
        found = loads(_decoded(text))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    """Return a claim as text, to compare with a setting."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else None
