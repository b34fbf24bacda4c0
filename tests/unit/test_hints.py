"""The hint of `verify` names a sender's common mistake."""

import hmac
import json
from base64 import b64encode

import pytest

from bridge.commands.hints import hint, nearest
from bridge.commands.scheme_options import AskedScheme
from bridge.proof.scheme import KeySlot, Raw
from bridge.proof.schemes.presets import configure
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from tests.builders import KEY, SECRET, a_slot
from tests.schemes import VERIFIED, slots_of, vectors

NOW = 1_700_000_000
BODY = b'{"id": "evt_1", "note": "CANARY <\xc3\xa9/\xc3\xa9>", "amount": 1.5}\n'
COMPACT = json.dumps(json.loads(BODY), separators=(",", ":")).encode()


def v1(signed: bytes, key: bytes = KEY) -> bytes:
    return hmac.digest(key, signed, "sha256")


def text(body: bytes = BODY, *, at: object = NOW) -> bytes:
    return b".".join((b"evt_1", str(at).encode(), body))


def element(signature: bytes) -> bytes:
    return b"v1," + b64encode(signature)


def found(signature: bytes, *, at: object = NOW, body: bytes = BODY, slot: KeySlot | None = None) -> str:
    heads = {b"webhook-id": b"evt_1", b"webhook-timestamp": str(at).encode(), b"webhook-signature": signature}
    says = hint(StandardWebhooks(), Raw(heads, body), [slot or a_slot()], NOW)
    assert "CANARY" not in says
    assert SECRET not in says
    return says


@pytest.mark.parametrize(
    ("signature", "at", "named"),
    [
        (element(v1(text(BODY + b"\n"))), NOW, "only the signed body has a line break"),
        (element(v1(text(BODY.rstrip()))), NOW, "no line break at its end"),
        *(
            (element(v1(text(body))), NOW, "the JSON was serialised again")
            for body in (
                COMPACT,
                json.dumps(json.loads(BODY), sort_keys=True).encode(),
                json.dumps(json.loads(BODY), indent=2, ensure_ascii=False).encode(),
                json.dumps(json.loads(BODY), indent=4, ensure_ascii=False).encode() + b"\n",
            )
        ),
        (b"v1," + v1(text()).hex().encode(), NOW, "the signature is written in hex: write it in base64"),
        *((prefix + b64encode(v1(text())), NOW, "write `v1,` before it") for prefix in (b"", b"v1=")),
        (element(v1(text(), SECRET.encode())), NOW, "the secret's text was used as the key"),
        (element(v1(text(), SECRET.removeprefix("whsec_").encode())), NOW, "the secret's text was used as the key"),
        (element(v1(text(), KEY + b"\n")), NOW, "a line break was part of the secret"),
        (element(v1(text(at=NOW * 1000 + 123))), NOW * 1000 + 123, "in milliseconds"),
        (element(v1(text(at=NOW - 1000))), NOW - 1000, "is 1000 s old"),
        (element(v1(text(BODY.rstrip(), at=NOW - 1000))), NOW - 1000, "that are sent; and the timestamp is 1000 s old"),
        (element(v1(text(at=NOW + 400))), NOW + 400, "is 400 s ahead"),
    ],
)
def test_a_mistake_is_named(signature: bytes, at: int, named: str) -> None:
    assert named in found(signature, at=at)


def test_line_breaks_that_curl_left_out_are_named() -> None:
    body = json.dumps(json.loads(BODY), indent=2).encode()
    sent = body.replace(b"\n", b"")
    assert "--data-binary" in found(element(v1(text(body + b"\n"))), body=sent)


@pytest.mark.parametrize("signature", [b"v1,", b"v1,c2hvcnQ=", element(v1(text(), b"x" * 32)), element(v1(b"another"))])
def test_what_nothing_explains_has_no_hint(signature: bytes) -> None:
    assert found(signature) == ""
    assert found(signature, body=b'{"id": "\\ud800"}') == ""


@pytest.mark.parametrize(
    ("encoding", "key", "named"),
    [
        ("utf8", SECRET.encode(), "written in base64: write it in hex"),
        ("hex", b"the-bytes-of-a-key-in-hex-digits", "the secret's text was used as the key"),
        ("base64", b"the-bytes-of-a-key-in-base64-ones", "the secret's text was used as the key"),
        ("utf8", b"6b6579206f66206865782064696769747320617320746578742121", "the secret was decoded"),
    ],
)
def test_an_hmac_of_the_body_is_explained_alike(encoding: str, key: bytes, named: str) -> None:
    scheme = configure("body_hmac+cidr", {"header": "X-S", "key_encoding": encoding, "networks": "::/0"}, tolerance_s=1)
    line = {"utf8": key.decode(), "hex": key.hex(), "base64": b64encode(key).decode()}[encoding]
    if named.endswith("hex"):
        value = b64encode(v1(BODY, key))
    else:
        signer = line.encode() if "was used as the key" in named else bytes.fromhex(line)
        value = v1(BODY, signer).hex().encode()

    says = hint(scheme, Raw({b"x-s": value}, BODY, peer="::1"), [KeySlot("x", scheme.parse_keys([line]))], NOW)

    assert named in says


# Of the parameters for a vendor's delivery, what a source has instead; None: it was not set.
NO_NAMES: dict[str, str | None] = dict.fromkeys(("signature_name", "time_name", "pair_separator"))
PLAIN = {"format": None, "template": None, "timestamp_header": None, **NO_NAMES}
MISTAKEN: list[tuple[str, dict[str, str | None]]] = [
    ("paddle_sdk", {"signature_name": None}),
    ("paddle_sdk", {"time_name": None}),
    ("paddle_sdk", {"pair_separator": None}),
    ("paddle_sdk", PLAIN),
    ("paddle_sdk", {"template": "{timestamp}.{body}"}),
    ("slack_documentation", {"prefix": None}),
    ("slack_documentation", {"template": None, "timestamp_header": None}),
    ("slack_documentation", {"timestamp_header": "X-Timestamp"}),
    ("slack_documentation", {"header": "X-Signature"}),
    ("square_sdk", {"encoding": None}),
    ("square_sdk", {"template": None}),
    ("zendesk_documentation", {"template": "{timestamp}{body}"}),
    ("zendesk_by_rule", {"time_unit": None}),
    ("hubspot_python_sdk", {"time_unit": None}),
    ("hubspot_python_sdk", {"encoding": None}),
    ("hubspot_python_sdk", {"template": "{method}{url}{body}", "timestamp_header": None, "time_unit": None}),
    ("name_in_the_header", {"signature_name": None}),
    ("name_in_the_header", PLAIN),
    ("milliseconds", {"time_unit": None}),
    ("sha1", {"digest": None}),
]


@pytest.mark.parametrize(("name", "wrong"), MISTAKEN)
def test_the_nearest_parameters_are_named(name: str, wrong: dict[str, str | None]) -> None:
    vector = next(each for each in vectors("vendors") if each.given["name"] == name)
    right = vector.given["parameters"]
    given = {key: value for key, value in (right | wrong).items() if value is not None}
    asked = AskedScheme(configure("body_hmac", given, tolerance_s=1), "body_hmac", given, 1, None)

    says = nearest(asked, vector.raw, lambda each: slots_of(each.scheme, vector.given["slots"]), NOW)

    assert says.startswith("the signature is right with SCHEME_")
    named = {part.partition("=")[0].lower() for part in says.split("SCHEME_")[1:]}
    assert named == {key for key in right if given.get(key) != right[key]}


def test_a_form_is_named_where_the_secret_is_another() -> None:
    given = {"header": "X-S"}
    asked = AskedScheme(configure("body_hmac", given, tolerance_s=1), "body_hmac", given, 1, None)
    raw = Raw({b"x-s": b"t=1700000000,s=" + b"0" * 64}, BODY)

    says = nearest(asked, raw, lambda each: slots_of(each.scheme, [{"name": "x", "line": SECRET}]), NOW)

    assert says.startswith("its headers have the form of SCHEME_FORMAT=pairs and SCHEME_SIGNATURE_NAME=s and ")
    assert nearest(asked, raw._replace(headers={b"x-s": b"no signature"}), lambda _: (), NOW) == ""


def test_no_vector_breaks_it_and_what_is_accepted_has_no_hint() -> None:
    for vector in vectors():
        says = hint(vector.scheme, vector.raw, vector.slots, vector.now)

        assert says == "" or vector.code != VERIFIED, vector.name
        assert not [slot for slot in vector.given["slots"] if slot["line"] in says], vector.name
