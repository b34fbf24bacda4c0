"""Verification on real bytes: the vectors of the contract, and further attacks."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.proof.scheme import PUBLIC_ELEMENTS_MAX, HmacKey, KeySlot, Proof, PublicKey, Raw
from bridge.proof.schemes.standard_webhooks import StandardWebhooks, parse_secret
from bridge.runtime.signing_secret import sign

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
VECTORS = json.loads((SAMPLES / "signature_vectors.json").read_text())
ID = "evt_1"
NOW = 1_789_398_570
BODY = b'{"id":"evt_1"}'
KEY = bytes(range(32))
PRIVATE = Ed25519PrivateKey.from_private_bytes(KEY)
PUBLIC_SLOT = KeySlot("current", PublicKey(PRIVATE.public_key().public_bytes_raw()))
SLOT = KeySlot("current", HmacKey(KEY))
GOOD = sign(ID, NOW, BODY, key=KEY).encode()
GOOD_PUBLIC = sign(ID, NOW, BODY, key=PRIVATE).encode()


def check(*, keys: Sequence[KeySlot] = (SLOT,), now: float = NOW, **changed: bytes) -> Proof:
    """Verify the good delivery with what a test changes about it: its id, timestamp or signature."""
    values = {"id": ID.encode(), "timestamp": str(NOW).encode(), "signature": GOOD, **changed}
    heads = {f"webhook-{name}".encode(): value for name, value in values.items()}
    return StandardWebhooks().verify(Raw(heads, BODY), keys, now)


def refusal(**changed: Any) -> tuple[str, str]:
    """Return the code and reason with which the changed delivery is refused."""
    with pytest.raises(DeliveryRefusedError) as caught:
        check(**changed)
    return caught.value.code, caught.value.reason


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_each_vector_is_decided_as_the_contract_says(vector: dict[str, Any]) -> None:
    heads = {name.encode(): value.encode() for name, value in vector["headers"].items()}
    body = (SAMPLES / vector["body_file"]).read_bytes()
    slots = [KeySlot("any", parse_secret(text)) for text in vector["secrets"]]

    try:
        StandardWebhooks().verify(Raw(heads, body), slots, vector["now"])
        accepted = True
    except DeliveryRefusedError:
        accepted = False

    assert accepted is vector["accept"]


def test_ed25519_elements_are_few() -> None:
    """Each hashes the body once more for each key before anything is proved."""
    junk = b"v1a,%s" % base64.b64encode(bytes(64))

    allowed = b" ".join([junk] * (PUBLIC_ELEMENTS_MAX - 1) + [GOOD_PUBLIC])

    assert check(signature=allowed, keys=[PUBLIC_SLOT, KeySlot("again", PUBLIC_SLOT.key)]).slot == "current"
    assert refusal(signature=junk + b" " + allowed, keys=[PUBLIC_SLOT]) == ("signature_malformed", "format")


def test_schemes_do_not_mix() -> None:
    """A public key is public: it must never serve as the shared secret of an HMAC."""
    public = PUBLIC_SLOT.key
    assert isinstance(public, PublicKey)

    forged = sign(ID, NOW, BODY, key=public.raw).encode()
    assert refusal(keys=[PUBLIC_SLOT], signature=forged)[0] == "signature_mismatch"
    assert refusal(keys=[SLOT], signature=GOOD_PUBLIC)[0] == "signature_mismatch"


def test_the_tolerance_is_inclusive_in_whole_seconds() -> None:
    """A sender counts whole seconds; at 300.999 s its clock and ours still differ by 300 of them."""
    assert check(now=NOW + 300.999).timestamp == NOW
    assert refusal(now=NOW - 300.001) == ("timestamp_future", "future")


@pytest.mark.parametrize(
    "text",
    [
        "", "whsec_", "whpk_", "whsec", base64.b64encode(KEY).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(), "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whpk_" + base64.b64encode(bytes(31)).decode(), "whpk_" + base64.b64encode(bytes(33)).decode(),
        "WHSEC_" + base64.b64encode(KEY).decode(), "whsec_ " + base64.b64encode(KEY).decode(),
        "whsec_" + base64.b64encode(KEY).decode().rstrip("="), "whsec_" + base64.b64encode(KEY).decode() + "=",
        "whsec_!" + base64.b64encode(KEY).decode(), "whsec_é" + base64.b64encode(KEY).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(), "whsk_" + base64.b64encode(KEY).decode(),
    ],
)  # fmt: skip
def test_any_other_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_secret(text)

    assert not text[6:] or text[6:] not in str(caught.value)
