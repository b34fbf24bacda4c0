"""Tokens of issuers, and forged ones."""

import hmac
import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from bridge.commands.hints import hint
from bridge.errors import ConfigError
from bridge.proof.scheme import SIGNATURE_MAX_BYTES, KeySet, KeySlot, Raw
from bridge.proof.schemes.parameters import ParameterError
from bridge.proof.schemes.presets import configure
from bridge.proof.schemes.token import Jwt
from bridge.proof.secrets import load
from bridge.runtime.secret_files import SecretsError
from tests.schemes import VERIFIED, verdict

NOW = 1_789_398_570
BODY = b'{"id":"evt_1"}'
SECRET = "the-secret-of-32-characters-here"
RSA, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
ALGORITHMS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}
ISSUER, AUDIENCE = "https://accounts.google.com", "https://bridge.example/webhooks/acme"
# The claims of a push of Pub/Sub, from Google's documentation.
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "azp": "113774264463038321964",
    "email": "gae-gcp@appspot.gserviceaccount.com",
    "email_verified": True,
    "iat": NOW,
    "exp": NOW + 3600,
}
EMAIL = {"claims": "email=gae-gcp@appspot.gserviceaccount.com, email_verified=true"}
HASHED = {"body_claim": "request_body_sha256", "header": "X-Token"}
BODY_HASH = sha256(BODY).hexdigest()


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def jwk(key: Any, algorithm: str, kid: str, **changes: object) -> dict[str, Any]:
    return {**json.loads(ALGORITHMS[algorithm].to_jwk(key.public_key())), "kid": kid, "alg": algorithm, **changes}


KEYS = [jwk(OTHER, "RS256", "x", use="enc"), jwk(RSA, "RS256", "a1", use="sig")]
KEYS += [jwk(EC, "ES256", "b2"), jwk(ED, "EdDSA", "c3")]
JWKS = json.dumps({"keys": KEYS}, indent=1)


def built(**parameters: str) -> Jwt:
    scheme = configure("jwt", {"issuer": ISSUER, "audience": AUDIENCE, **parameters}, tolerance_s=300)
    assert isinstance(scheme, Jwt)
    return scheme


def encoded(part: object) -> bytes:
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(content).rstrip(b"=")


def token(key: Any = RSA, algorithm: str = "RS256", head: dict[str, Any] | None = None, **claims: object) -> bytes:
    given = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return jwt.encode(given, key, algorithm, headers=head).encode()


def by_hand(head: object, claims: object = CLAIMS) -> bytes:
    """Sign with RS256 what the library would not make."""
    signed = encoded(head) + b"." + encoded(claims)
    return signed + b"." + encoded(RSA.sign(signed, PKCS1v15(), SHA256()))


def keyed_with(secret: bytes, head: object) -> bytes:
    signed = encoded(head) + b"." + encoded(CLAIMS)
    return signed + b"." + encoded(hmac.digest(secret, signed, "sha256"))


def judged(
    given: bytes, *, key: str = JWKS, word: str = "Bearer ", body: bytes = BODY, now: float = NOW, **parameters: str
) -> str:
    scheme = built(**parameters)
    slot = KeySlot("current", scheme.parse_key(key.strip().replace("\n", "\t")))
    heads = {scheme.header: (word.encode() if scheme.word else b"") + given}
    return verdict(scheme, Raw(heads, body), [slot], now)


JUDGED: dict[str, list[tuple[bytes, dict[str, Any]]]] = {
    VERIFIED: [
        (token(head={"kid": "a1"}), EMAIL),
        (token(), {"word": "bearer "}),
        (token(algorithm="PS256", head={"kid": "a1"}), {"key": pem(RSA)}),
        (token(algorithm="PS256"), {"key": json.dumps({"keys": [{}, jwk(RSA, "RS256", "a1", alg=None)]})}),
        (token(EC, "ES256", {"kid": "b2"}), {}),
        (token(EC, "ES256"), {"key": pem(EC)}),
        (token(ED, "EdDSA"), {"key": pem(ED)}),
        (token(SECRET, "HS256"), {"key": SECRET, "algorithms": "HS256"}),
        (token(aud=["another", AUDIENCE]), {}),
        (token(jti="evt_7"), {"id_claim": "jti"}),
        (token(nbf=NOW + 300, iat=NOW + 300), {}),
        (token(exp=NOW - 300), {}),
        (token(exp=NOW + 0.5), {}),
        (token(nbf=0, iat=0), {}),
        (token(level=2, scope="a=b"), {"claims": "level=2, scope=a=b"}),
        (token(EC, "ES256", request_body_sha256=BODY_HASH), HASHED),
    ],
    "signature_mismatch": [
        (token(OTHER), {}),
        (token(aud="https://other.example"), {}),
        (token(aud=["another"]), {}),
        (token(aud=None), {}),
        (token(iss="https://evil.example"), {}),
        (token(iss=None), {}),
        (token(email="other@x"), EMAIL),
        (token(email_verified=False), EMAIL),
        (token(email_verified="True"), EMAIL),
        (token(level=[2]), {"claims": "level=[2]"}),
        (token(head={"kid": "b2"}), {}),
        (token(OTHER, head={"kid": "x"}), {}),  # a key for encryption
        (token(head={"kid": "../../../dev/null"}), {}),
        (by_hand({"alg": "RS256", "kid": ["a1"]}), {}),
        (token(algorithm="PS256"), {}),  # the key of the set is for RS256
        (token(EC, "ES256"), {"key": pem(RSA)}),
        (token(OTHER, head={"jku": "https://evil.example", "jwk": KEYS[0]}), {}),
        (keyed_with(pem(RSA).encode(), {"alg": "HS256"}), {"key": pem(RSA), "algorithms": "HS256,RS256"}),
        (token(SECRET, "HS256"), {"key": pem(RSA), "algorithms": "HS256,RS256"}),
        (keyed_with(SECRET.encode(), {"alg": "RS256"}), {"key": SECRET, "algorithms": "HS256,RS256"}),
        (token(EC, "ES256"), HASHED),
        (token(EC, "ES256", request_body_sha256=BODY_HASH), {**HASHED, "body": BODY + b" "}),
    ],
    "signature_malformed": [
        (encoded({"alg": "none"}) + b"." + encoded(CLAIMS) + b".", {}),
        (encoded({"alg": "none"}) + b"." + encoded(CLAIMS) + b".eA", {}),
        (keyed_with(pem(RSA).encode(), {"alg": "HS256"}), {"key": pem(RSA)}),
        (token(SECRET, "HS256"), {}),
        (by_hand({}), {}),
        (by_hand({"alg": ["RS256"]}), {}),
        (by_hand({"alg": "RS256", "crit": ["b64"], "b64": False}), {}),
        (by_hand(b"x"), {}),
        (by_hand(b"[" * 5000), {}),
        (by_hand({"alg": "RS256"}, [1]), {}),
        (by_hand({"alg": "RS256"}, b"\xff"), {}),
        (by_hand({"alg": "RS256"}, {}), {}),
        (token(), {"word": ""}),
        (token(), {"word": "Basic "}),
        (token().rpartition(b".")[0], {}),
        (token() + b".x.y", {}),
        (token() + b"=", {}),
        (token() + b" ", {}),
        (token(padding="x" * SIGNATURE_MAX_BYTES), {}),
        (b"", {}),
    ],
    "timestamp_stale": [(token(exp=NOW - 301), {}), (token(request_body_sha256=BODY_HASH, iat=NOW - 301), HASHED)],
    "timestamp_future": [(token(nbf=NOW + 301), {}), (token(iat=NOW + 301), {})],
    "timestamp_malformed": [
        (token(exp=None), {}),
        (token(exp=True), {}),
        (by_hand({"alg": "RS256"}, CLAIMS | {"exp": "9"}), {}),
        (by_hand({"alg": "RS256"}, json.dumps(CLAIMS)[:-1].encode() + b',"nbf":1e999}'), {}),
        (token(exp=10**400), {}),
        (token(iat=-(10**400)), {}),
        (token(request_body_sha256=BODY_HASH, iat=None), HASHED),
    ],
    "id_malformed": [
        (token(), {"id_claim": "jti"}),
        (token(jti="a b"), {"id_claim": "jti"}),
        (by_hand({"alg": "RS256"}, CLAIMS | {"jti": "\ud800"}), {"id_claim": "jti"}),
        (by_hand({"alg": "RS256"}, CLAIMS | {"jti": 7}), {"id_claim": "jti"}),
    ],
}


@pytest.mark.parametrize(("code", "given", "more"), [(code, *row) for code, rows in JUDGED.items() for row in rows])
def test_a_token_is_taken_or_refused_by_what_is_wrong_with_it(code: str, given: bytes, more: dict[str, Any]) -> None:
    """Times and ids are checked after the signature."""
    assert judged(given, **more) == code


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (token(iss="x"), f"iss is not {ISSUER}"),
        (token(aud="x", email="x"), f"email is not gae-gcp@appspot.gserviceaccount.com; aud is not {AUDIENCE}"),
        (token(OTHER, iss="x", exp=NOW - 301), f"iss is not {ISSUER}; exp is past"),
        (token(exp=None, nbf=NOW + 301), "exp is no valid time; nbf is in the future"),
        (token(iat=NOW + 301, jti="a b"), "jti is no valid id; iat is in the future"),
        (token(iat=None, iss="x"), f"iss is not {ISSUER}"),
        (token(head={"kid": "z9"}), "no valid key has its kid"),
        (token(SECRET, "HS256"), "alg is not one of ES256, EdDSA, PS256, RS256"),
        (token(algorithm="PS256"), "no valid key is for its alg"),
        (token(OTHER), "its claims are right, but no valid key gives its signature"),
        (b"x", ""),
        (token(), ""),
    ],
)
def test_what_is_wrong_with_a_token_is_named(given: bytes, named: str) -> None:
    """By the names of its claims, never by what they say."""
    scheme = built(**EMAIL, **({"id_claim": "jti"} if "jti" in named else {}))
    slots = [KeySlot("current", scheme.parse_key(JWKS.replace("\n", "\t")))]

    assert hint(scheme, Raw({scheme.header: b"Bearer " + given}, BODY), slots, NOW) == named


def test_every_other_character_of_a_token_ends_it() -> None:
    """Also one that decodes to equal bytes: each delivery has one spelling."""
    good = token(EC, "ES256")
    for at in range(len(good)):
        # The last one has bits that decode to nothing.
        for other in b"AB_-z9.=" if at < len(good) - 1 else bytes(range(256)):
            if other != good[at]:
                assert judged(good[:at] + bytes([other]) + good[at + 1 :]) != VERIFIED


def test_what_is_proved() -> None:
    scheme = built(id_claim="jti", **HASHED)
    slot = KeySlot("google.jwks.json", scheme.parse_key(JWKS))
    raw = Raw({b"x-token": token(jti="evt_7", request_body_sha256=BODY_HASH)}, BODY)

    proof = scheme.verify(raw, [slot], NOW)

    assert (proof.id, proof.timestamp, proof.slot, proof.id_signed) == ("evt_7", NOW, "google.jwks.json", True)
    assert scheme.headers == {b"x-token"}  # of which two are refused
    assert built(jwks_url="https://x.example/k").jwks_url == "https://x.example/k"
    assert built().headers == {b"authorization"}
    assert (scheme.ids, built().ids) == ("signed", "none")
    assert scheme.describe() == (
        f"jwt in x-token, with the body's hash in request_body_sha256, of {ISSUER} for {AUDIENCE}"
    )
    assert built().verify(Raw({b"authorization": b"Bearer " + token(jti="x")}, b""), [slot], NOW).id is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("iss", "aud", "exp", "nbf", "iat", "jti", "request_body_sha256", "email")
SCHEME = built(algorithms="HS256,RS256", id_claim="jti", body_claim="request_body_sha256", claims="email=x")
SLOTS = [KeySlot("a", SCHEME.parse_key(SECRET)), KeySlot("b", SCHEME.parse_key(JWKS))]


@given(
    head=st.dictionaries(st.sampled_from(["kid", "typ", "crit", "alg"]), JSON),
    claims=st.dictionaries(st.sampled_from(NAMES), JSON),
)
def test_whatever_a_token_says_is_proved_or_refused(head: dict[str, Any], claims: dict[str, Any]) -> None:
    good = CLAIMS | {"jti": "x", "request_body_sha256": BODY_HASH, "email": "x"}
    for said in (claims, good | claims):
        for opened in (head, {"alg": "HS256"}):
            signed = encoded(opened) + b"." + encoded(said)
            proof = encoded(hmac.digest(SECRET.encode(), signed, "sha256"))
            assert verdict(SCHEME, Raw({b"authorization": b"Bearer " + signed + b"." + proof}, BODY), SLOTS, NOW)


@pytest.mark.parametrize("content", [JWKS, pem(RSA), f"{pem(EC)}not_before = 2026-01-31T00:00:00Z\n"])
def test_a_slot_file_holds_a_document_or_a_public_key(tmp_path: Path, content: str) -> None:
    (tmp_path / "google.jwks.json").write_text(content)

    (slot,) = load(tmp_path, built())

    assert isinstance(slot.key, KeySet)
    assert repr(slot.key) == "KeySet()"
    assert (slot.not_before > 0) == ("not_before" in content)


PRIVATE = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        PRIVATE,
        pem(SHORT),
        pem(ec.generate_private_key(ec.SECP384R1())),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        "{}",
        '{"keys": []}',
        '{"keys": 7}',
        '{"keys": [7]}',
        '{"keys": [{"kty": "RSA", "n": "AQAB"}]}',
        json.dumps({"keys": [{**KEYS[1], "alg": "RS512"}]}),
        json.dumps({"keys": [KEYS[0]]}),
        json.dumps({"keys": [json.loads(ALGORITHMS["EdDSA"].to_jwk(ED))]}),
        json.dumps({"keys": [{"kty": "oct", "k": "AAAA"}]}),
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_public_key_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "current").write_text(content)

    with pytest.raises(SecretsError) as caught:
        load(tmp_path, built())

    said = str(caught.value).removeprefix(str(tmp_path))
    assert "\n" not in said
    assert not [line for line in content.splitlines() if len(line) > 20 and line[:20] in said]


@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [
        ({"issuer": ISSUER}, "scheme_audience"),
        ({"audience": AUDIENCE}, "scheme_issuer"),
        ({"algorithms": "none"}, "scheme_algorithms"),
        ({"algorithms": "RS256,HS512"}, "scheme_algorithms"),
        ({"algorithms": ""}, "scheme_algorithms"),
        ({"claims": "email"}, "scheme_claims"),
        ({"claims": "=x"}, "scheme_claims"),
        ({"jwks_url": "http://example.com/keys"}, "scheme_jwks_url"),
        ({"jwks_url": "file:///etc/passwd"}, "scheme_jwks_url"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(parameters: dict[str, str], parameter: str) -> None:
    required = {} if parameter in {"scheme_issuer", "scheme_audience"} else {"issuer": ISSUER, "audience": AUDIENCE}

    with pytest.raises(ParameterError) as caught:
        configure("jwt", required | parameters, tolerance_s=300)

    assert caught.value.parameter == parameter


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="a text of 32 bytes"):
        built(algorithms="HS256").parse_key(SECRET[:31])


def test_a_token_without_an_end_of_its_tolerance_is_refused() -> None:
    with pytest.raises(ParameterError, match="tolerance_s"):
        configure("jwt", {"issuer": ISSUER, "audience": AUDIENCE}, tolerance_s=None)


def test_a_process_without_tokens_does_not_load_the_library() -> None:
    program = "import sys, bridge.app, bridge.cli; sys.exit('jwt' in sys.modules)"

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)  # noqa: S603 - our own program
