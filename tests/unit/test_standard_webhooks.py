"""What proves a delivery, on real bytes: the vectors of the contract, and the attacks they leave out."""

import base64
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.ingress.proof import PUBLIC_ELEMENTS_MAX, HmacKey, KeySlot, Proof, PublicKey, Raw
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks, parse_secret, sign

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
VECTORS = json.loads((SAMPLES / "signature_vectors.json").read_text())
ID = "evt_1"
NOW = 1_789_398_570
FULL_WIDTH = "\uff11\uff17\uff18\uff19"
ARABIC = "\u0661\u0662\u0663"
BODY = b'{"id":"evt_1"}'
KEY = bytes(range(32))
PRIVATE = Ed25519PrivateKey.from_private_bytes(KEY)
PUBLIC_SLOT = KeySlot("current", PublicKey(PRIVATE.public_key().public_bytes_raw()))
SLOT = KeySlot("current", HmacKey(KEY))
GOOD = sign(ID, NOW, BODY, key=KEY).encode()
GOOD_PUBLIC = sign(ID, NOW, BODY, key=PRIVATE).encode()


def the_heads(**changed: bytes | None) -> dict[bytes, bytes]:
    """Build good headers but for `id`, `timestamp` or `signature`; None leaves one out."""
    values = {"id": ID.encode(), "timestamp": str(NOW).encode(), "signature": GOOD, **changed}
    return {f"webhook-{name}".encode(): value for name, value in values.items() if value is not None}


def check(
    *,
    keys: Sequence[KeySlot] = (SLOT,),
    body: bytes = BODY,
    now: float = NOW,
    tolerance_s: int | None = 300,
    **heads: Any,
) -> Proof:
    """Verify the good delivery with what a test changes about it."""
    return StandardWebhooks(tolerance_s).prove(Raw(the_heads(**heads), body), keys, now)


def refusal(**changed: Any) -> tuple[str, str]:
    """Return the code and reason with which the changed delivery is refused."""
    with pytest.raises(DeliveryRefusedError) as caught:
        check(**changed)
    return caught.value.code, caught.value.reason


def slots_of(secrets: Sequence[str]) -> list[KeySlot]:
    return [KeySlot(f"slot-{number}", parse_secret(text)) for number, text in enumerate(secrets)]


each_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])


@each_vector
def test_each_vector_is_decided_as_the_contract_says(vector: dict[str, Any]) -> None:
    heads = {name.encode(): value.encode() for name, value in vector["headers"].items()}
    body = (SAMPLES / vector["body_file"]).read_bytes()

    try:
        StandardWebhooks().prove(Raw(heads, body), slots_of(vector["secrets"]), vector["now"])
        accepted = True
    except DeliveryRefusedError:
        accepted = False

    assert accepted is vector["accept"]


@pytest.mark.parametrize(("key", "slot"), [(KEY, SLOT), (PRIVATE, PUBLIC_SLOT)], ids=["v1", "v1a"])
def test_what_the_sender_signs_is_accepted(key: bytes | Ed25519PrivateKey, slot: KeySlot) -> None:
    signature = sign(ID, NOW, BODY, key=key).encode()

    assert check(signature=signature, keys=[slot]) == Proof(ID, NOW, "current")


def test_v1_is_the_one_of_the_specification() -> None:
    """Source: the worked example of the Standard Webhooks reference libraries."""
    key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert isinstance(key, HmacKey)

    signature = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key=key.secret)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_other_spelling_is_the_one_of_svix() -> None:
    """Source: Svix Docs, "Verifying Webhooks Manually"; its secret is shorter than a slot file may have it."""
    key = HmacKey(base64.b64decode("plJ3nmyCDGBKInavdOK15jsl"))
    heads = {
        b"svix-id": b"msg_loFOjxBNrRLzqYUf",
        b"svix-timestamp": b"1731705121",
        b"svix-signature": b"v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }
    raw = Raw(heads, b'{"event_type":"ping","data":{"success":true}}')

    proof = StandardWebhooks().prove(raw, [KeySlot("current", key)], 1_731_705_121)

    assert proof == Proof("msg_loFOjxBNrRLzqYUf", 1_731_705_121, "current")


@pytest.mark.parametrize("slot", [SLOT, PUBLIC_SLOT], ids=["v1", "v1a"])
@pytest.mark.parametrize(
    "changed", [{"id": b"evt_2"}, {"timestamp": b"1789398571"}, {"body": BODY + b" "}], ids=["id", "timestamp", "body"]
)
def test_nothing_that_is_signed_can_change(slot: KeySlot, changed: dict[str, bytes]) -> None:
    signature = GOOD if slot is SLOT else GOOD_PUBLIC

    assert refusal(signature=signature, keys=[slot], **changed) == ("signature_mismatch", "mismatch")


# Everything that a dot can stand before, between and after, in an id and at the beginning of a body.
DOTTED_IDS = ("evt", "evt.1789398570", "evt.1789398570.x", "evt.x.1789398571", "1.2.3", "evt.1789398570.", "a..7", ".5")
DOTTED_BODIES = (b"7.5", b'{"v":"1.1789398570.3"}', b"1789398570.{}", b'{"id":"evt_1"}', b".7.", b"x.7.y", b"")


@pytest.mark.parametrize(("key", "slot"), [(KEY, SLOT), (PRIVATE, PUBLIC_SLOT)], ids=["v1", "v1a"])
def test_signed_text_cannot_be_split_in_another_place(key: bytes | Ed25519PrivateKey, slot: KeySlot) -> None:
    """The text that is signed has no lengths in it, only dots: every other way to read it is an altered delivery."""
    for webhook_id, body in product(DOTTED_IDS, DOTTED_BODIES):
        signature = sign(webhook_id, NOW, body, key=key).encode()
        true = (webhook_id.encode(), str(NOW).encode(), body)
        parts = b".".join(true).split(b".")
        ways = [(b".".join(parts[:at]), parts[at], b".".join(parts[at + 1 :])) for at in range(1, len(parts) - 1)]
        assert ways.count(true) == 1
        for other in ways:
            if other != true:
                given: dict[str, Any] = dict(zip(("id", "timestamp", "body"), other, strict=True))
                with pytest.raises(DeliveryRefusedError):
                    check(**given, signature=signature, keys=[slot], tolerance_s=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("id", value) for value in (b"", b"a b", b"a\x00", b"a\n", b"\xc3\xa9", b"\x7f", b"x" * 201)),
        # Python's int() would take half of these.
        *(
            ("timestamp", value)
            for value in (
                *(b"", b"+1789398570", b"-1", b" 1789398570", b"1789398570\n", b"1_789_398_570", b"1789398570.0"),
                *(b"1e9", b"nan", b"0x6aa", FULL_WIDTH.encode(), ARABIC.encode(), b"\xff", b"1" * 13),
            )
        ),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_an_id_is_printable_ascii_and_a_time_one_to_twelve_digits(name: str, value: bytes) -> None:
    assert refusal(**{name: value}) == (f"{name}_malformed", "format")


@pytest.mark.parametrize(
    "signature",
    [
        b"", b" ", b"v1", b"v1,", b",", b"v1a,", b"v1a,!!!!", GOOD[3:], b"V1" + GOOD[2:], b"v2" + GOOD[2:],
        b"v1 " + GOOD[3:], b"v1,," + GOOD[3:], GOOD[:-1], GOOD + b"=", GOOD[:-1] + b"%3D", GOOD[:9] + b"!" + GOOD[9:],
        GOOD[:9] + b"\n" + GOOD[9:], GOOD + b"\t", b"\t" + GOOD, GOOD + b"," + GOOD, GOOD.replace(b"v1,", b"v1a,"),
        GOOD + b"\xa0", "v1,é".encode(), b"\xff\xfe", b"x" * 4096, b"v1," + b"A" * 4096,
    ],
)  # fmt: skip
@pytest.mark.parametrize("slot", [SLOT, PUBLIC_SLOT], ids=["v1", "v1a"])
def test_a_malformed_element_is_a_mismatch_and_never_an_exception(signature: bytes, slot: KeySlot) -> None:
    assert refusal(signature=signature, keys=[slot]) == ("signature_mismatch", "mismatch")


@pytest.mark.parametrize(
    "signature",
    [b"  " + GOOD, GOOD + b"  ", b"garbage   " + GOOD, GOOD + b" v1,\xff", b"v2,x v9,y " + GOOD,
     b"v1,%s " % base64.b64encode(bytes(32)) * 100 + GOOD, GOOD_PUBLIC + b" " + GOOD],
)  # fmt: skip
def test_any_element_may_be_the_good_one(signature: bytes) -> None:
    assert check(signature=signature).slot == "current"


def test_ed25519_elements_are_few() -> None:
    """Each hashes the body once more for each key before anything is proved."""
    junk = b"v1a,%s" % base64.b64encode(bytes(64))

    allowed = b" ".join([junk] * (PUBLIC_ELEMENTS_MAX - 1) + [GOOD_PUBLIC])

    assert check(signature=allowed, keys=[PUBLIC_SLOT]).slot == "current"
    assert refusal(signature=junk + b" " + allowed, keys=[PUBLIC_SLOT]) == ("signature_malformed", "format")


def test_schemes_do_not_mix() -> None:
    """A public key is public: it must never serve as the shared secret of an HMAC."""
    public = PUBLIC_SLOT.key
    assert isinstance(public, PublicKey)

    assert (
        refusal(keys=[PUBLIC_SLOT], signature=sign(ID, NOW, BODY, key=public.raw).encode())[0] == "signature_mismatch"
    )
    assert refusal(keys=[SLOT], signature=GOOD_PUBLIC)[0] == "signature_mismatch"


@pytest.mark.parametrize(
    ("offset_s", "expected"),
    [
        (300, None),
        (300.999, None),
        (301, ("timestamp_stale", "stale")),
        (-300, None),
        (-300.001, ("timestamp_future", "future")),
        (-301, ("timestamp_future", "future")),
    ],
)
def test_the_tolerance_is_inclusive_in_whole_seconds(offset_s: float, expected: tuple[str, str] | None) -> None:
    """A sender counts whole seconds; at 300.999 s its clock and ours still differ by 300 of them."""
    if expected is None:
        assert check(now=NOW + offset_s).timestamp == NOW
    else:
        assert refusal(now=NOW + offset_s) == expected


def test_a_forged_delivery_is_a_mismatch_however_old() -> None:
    """`stale` and `future` must speak of a genuine sender's clock."""
    assert refusal(now=NOW + 10_000, body=b"{}") == ("signature_mismatch", "mismatch")


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
