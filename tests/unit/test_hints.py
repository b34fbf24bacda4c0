"""A sender makes one mistake at a time, and the hint names it; what nothing explains is said to be so."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bridge.commands.hints import hints
from bridge.ingress.proof import KeySlot, PublicKey, Raw
from bridge.ingress.schemes.presets import configure
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks, sign
from tests.builders import KEY, SECRET, a_slot
from tests.schemes import VERIFIED, Vector, vectors

NOW = 1_700_000_000
BODY = b'{"id": "evt_1", "note": "CANARY <\xc3\xa9/\xc3\xa9>", "amount": 1.5}\n'
COMPACT = json.dumps(json.loads(BODY), separators=(",", ":")).encode()
NOTHING = "no likely mistake explains it: another secret signed, or another body than this one"


def v1(signed: bytes, key: bytes = KEY, digest: str = "sha256") -> bytes:
    return hmac.digest(key, signed, digest)


def text(body: bytes = BODY, *, id: str = "evt_1", at: object = NOW) -> bytes:  # noqa: A002 - the field's name
    return b".".join((id.encode(), str(at).encode(), body))


def element(signature: bytes) -> bytes:
    return b"v1," + b64encode(signature)


def said(
    signature: bytes | None,
    *slots: KeySlot,
    id: str = "evt_1",  # noqa: A002 - the field's name
    at: object = NOW,
    now: float = NOW,
    body: bytes = BODY,
    **others: tuple[KeySlot, ...],
) -> list[str]:
    heads = {b"webhook-id": id.encode(), b"webhook-timestamp": str(at).encode()}
    if signature is not None:
        heads[b"webhook-signature"] = signature
    found = hints(StandardWebhooks(), Raw(heads, body), slots or (a_slot(),), now, others=others)
    assert "CANARY" not in " ".join(found)
    assert SECRET not in " ".join(found)
    return found


def test_a_delivery_that_is_accepted_needs_no_hint() -> None:
    assert said(element(v1(text()))) == []


@pytest.mark.parametrize(
    ("signed", "named"),
    [
        (text(BODY + b"\n"), "a line break more at its end"),
        (text(BODY.rstrip()), "no line break at its end"),
        (text(BODY.replace(b"\n", b"\r\n")), "other line breaks"),
        (text(b"\xef\xbb\xbf" + BODY), "a byte order mark before it"),
        (text(at=NOW * 1000 + 123), "milliseconds were signed, and whole seconds were sent"),
        (text(b""), "an empty body was signed"),
        (text(COMPACT), "another form (compact)"),
        (text(json.dumps(json.loads(BODY), sort_keys=True).encode()), "with spaces, keys sorted"),
        (text(COMPACT.replace(b"/", b"\\/")), "as PHP"),
        (text(json.dumps(json.loads(BODY), indent=2, ensure_ascii=False).encode()), "indented"),
        (BODY, "{body} was signed: sign {id}.{timestamp}.{body}"),
        (f"{NOW}.".encode() + BODY, "{timestamp}.{body} was signed"),
        (b"evt_1." + BODY, "{id}.{body} was signed"),
        (f"evt_1{NOW}".encode() + BODY, "{id}{timestamp}{body} was signed"),
    ],
)
def test_what_was_signed_instead_is_named(signed: bytes, named: str) -> None:
    (hint,) = said(element(v1(signed)))

    assert named in hint


def test_an_id_that_is_the_body_s_is_named() -> None:
    (hint,) = said(element(v1(text())), id="msg_1")

    assert hint.startswith("the id of the body was signed")


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lambda signature: b"v1," + signature.hex().encode(), "written in hex: write it in base64"),
        (lambda signature: b"v1," + b64encode(signature.hex().encode()), "the base64 of its hex text"),
        (b64encode, "`v1,` is missing"),
        (lambda signature: b"v1=" + b64encode(signature), "`v1,` is missing"),
        (lambda signature: b"v1," + b64encode(signature).rstrip(b"="), "without its padding"),
        (lambda signature: b"v1," + urlsafe_b64encode(signature), "URL-safe base64"),
    ],
)
def test_how_the_signature_was_written_is_named(write: Callable[[bytes], bytes], named: str) -> None:
    signatures = (v1(text(at=at)) for at in range(NOW, NOW + 1000))
    signature = next(each for each in signatures if b"/" in b64encode(each) and b"+" in b64encode(each))
    at = next(at for at in range(NOW, NOW + 1000) if v1(text(at=at)) == signature)

    (hint,) = said(write(signature), at=at, now=at)

    assert named in hint


@pytest.mark.parametrize("key", [SECRET.encode(), SECRET.removeprefix("whsec_").encode()])
def test_the_text_of_the_secret_as_key_is_named(key: bytes) -> None:
    (hint,) = said(element(v1(text(), key)))

    assert hint.startswith("the text of the secret was the key")


def test_a_line_break_in_the_secret_is_named() -> None:
    (hint,) = said(element(v1(text(), KEY + b"\n")))

    assert hint.startswith("a line break was part of the secret")


@pytest.mark.parametrize("digest", ["sha1", "sha512"])
def test_another_digest_is_named(digest: str) -> None:
    (hint,) = said(element(v1(text(), digest=digest)))

    assert hint == f"HMAC-{digest.upper()} was used: use HMAC-SHA256"


def test_a_slot_that_no_longer_counts_or_does_not_yet_is_named_with_its_time() -> None:
    ended = replace(a_slot("previous"), accept_until=NOW - 86_400.0)
    coming = replace(a_slot("next"), not_before=NOW + 86_400.0)

    assert said(element(v1(text())), ended) == [
        "the key in slot previous signed, which counted until 2023-11-13T22:13:20Z"
    ]
    assert said(element(v1(text())), coming) == [
        "the key in slot next signed, which counts from 2023-11-15T22:13:20Z on"
    ]


def test_the_key_of_another_source_is_named() -> None:
    other = a_slot(key=b"the key of another source, really")

    (hint,) = said(element(v1(text(), b"the key of another source, really")), billing=(other,))

    assert hint == "the key of source billing in slot current signed"


def test_two_mistakes_are_both_named() -> None:
    assert said(b"v1," + v1(text(BODY.rstrip())).hex().encode()) == [
        "the body that was signed has no line break at its end: sign the exact bytes that are sent",
        "the signature is written in hex: write it in base64",
    ]


def test_what_nothing_explains_is_said_to_be_so() -> None:
    assert said(element(v1(text(), b"x" * 32))) == [NOTHING]


@pytest.mark.parametrize("signature", [b"v1,", b"v1,c2hvcnQ=", b"v1,not base64 at all", element(v1(text())[:30])])
def test_what_cannot_be_a_signature_is_said_to_be_none(signature: bytes) -> None:
    (hint,) = said(signature)

    assert hint == "what was sent cannot be a signature, which is 32 bytes in base64: was it cut off?"


@pytest.mark.parametrize(
    ("at", "named"),
    [
        (NOW * 1000, "in milliseconds"),
        (f"{NOW}.5", "has a fraction"),
        ("2026-09-14T15:09:26Z", "1 to 12 digits"),
    ],
)
def test_a_timestamp_of_another_form_is_named(at: object, named: str) -> None:
    (hint,) = said(element(v1(text(at=at))), at=at)

    assert named in hint


@pytest.mark.parametrize(
    ("off_s", "named"),
    [(-1000, "is 1000 s old: sign each attempt anew"), (400, "is 400 s ahead"), (-7190, "about 2 h: was a local time")],
)
def test_a_timestamp_of_another_time_is_told_in_seconds_and_hours(off_s: int, named: str) -> None:
    (hint,) = said(element(v1(text(at=NOW + off_s))), at=NOW + off_s)

    assert hint.startswith("the signature is right")
    assert named in hint


def test_missing_headers_are_named() -> None:
    assert said(None) == ["there is no header webhook-signature"]


def test_an_id_with_a_space_is_named() -> None:
    (hint,) = said(element(v1(text())), id="evt 1")

    assert "without a space" in hint


def test_an_id_that_could_be_split_is_named() -> None:
    (hint,) = said(element(v1(text(id="a.123"))), id="a.123")

    assert "use an id without a `.`" in hint


def test_a_public_key_is_tried_as_well() -> None:
    private = Ed25519PrivateKey.from_private_bytes(KEY)
    key = PublicKey(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    signature = sign("evt_1", NOW, COMPACT, key=private)

    (hint,) = said(signature.encode(), KeySlot("current", key))

    assert "another form (compact)" in hint


def of_header(value: bytes, **parameters: str) -> list[str]:
    """Return the hints for a header of one of the other schemes."""
    kind, name = parameters.pop("scheme"), parameters["header"].lower().encode()
    scheme = configure(kind, parameters, tolerance_s=None)
    slot = KeySlot("current", scheme.parse_key(SECRET))
    return hints(scheme, Raw({name: value}, BODY), [slot], NOW)


def test_an_hmac_of_the_body_is_explained_alike() -> None:
    signature = hmac.digest(SECRET.encode(), BODY, "sha256")

    assert of_header(b64encode(signature), scheme="body_hmac", header="X-S") == [
        "the signature is written in base64: write it in hex"
    ]
    assert of_header(signature.hex().upper().encode(), scheme="body_hmac", header="X-S", prefix="sha256=") == [
        "`sha256=` is missing before the signature; the signature is written in hex in capital letters: write it in hex"
    ]
    assert of_header(f"sha256={signature.hex()}".encode(), scheme="body_hmac", header="X-S") == [
        "a label stands before the signature, which the source does not expect"
    ]
    assert of_header(hmac.digest(KEY, BODY, "sha256").hex().encode(), scheme="body_hmac", header="X-S") == [NOTHING]


@pytest.mark.parametrize(
    ("signed", "at", "header", "named"),
    [
        (BODY + b"\n", NOW, "t={at},v1={signature}", "a line break more at its end"),
        (BODY + b"\n", NOW, "v1={signature}, t={at}", "a line break more at its end"),
        (BODY, NOW - 1000, "t={at},v1={signature}", "1000 s old"),
        (BODY, NOW - 1000, "v1={signature}, t={at}", "1000 s old"),
        (BODY, NOW, "t={at},{signature}", "`v1=` is missing before the signature"),
        (b"another body", NOW, "t={at},v1={signature}", NOTHING),
    ],
)
def test_a_header_of_pairs_is_explained_alike(signed: bytes, at: int, header: str, named: str) -> None:
    scheme = configure("stripe", {}, tolerance_s=300)
    slot = KeySlot("current", scheme.parse_key(SECRET))
    signature = hmac.digest(SECRET.encode(), b"%d." % at + signed, "sha256").hex()
    heads = {b"stripe-signature": header.format(at=at, signature=signature).encode()}

    (hint,) = hints(scheme, Raw(heads, BODY), [slot], NOW)

    assert named in hint


def test_headers_of_both_spellings_are_explained_by_those_that_are_read() -> None:
    old = NOW - 1000
    heads = {b"svix-id": b"evt_1", b"svix-timestamp": str(old).encode(), b"svix-signature": element(v1(text(at=old)))}

    (hint,) = hints(StandardWebhooks(), Raw(heads | {b"webhook-signature": b"v1,x"}, BODY), [a_slot()], NOW)

    assert "1000 s old" in hint


def test_half_of_a_surrogate_pair_in_the_body_s_id_breaks_nothing() -> None:
    assert said(element(v1(b"another")), body=b'{"id": "\\ud800"}') == [NOTHING]


@pytest.mark.parametrize(
    ("value", "word", "named"),
    [
        (f'"{SECRET}"', "", "quotes are part"),
        (f"Bearer {SECRET}", "", "a word stands before it"),
        (SECRET, "Secret", "the word `Secret` is missing"),
        (b64encode(SECRET.encode()).decode(), "", "sent in base64"),
    ],
)
def test_a_secret_that_was_sent_otherwise_is_explained(value: str, word: str, named: str) -> None:
    parameters = {"scheme": "secret_header", "header": "X-S"} | ({"word": word} if word else {})

    (hint,) = of_header(value.encode(), **parameters)

    assert named in hint


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("a value of the very same length as it!!"[: len(SECRET)], "is not the secret of a slot"),
        ("wrong", "and has another length"),
        (SECRET.upper(), "capital and small letters differ"),
        (SECRET[:-3], "only its beginning was sent"),
        (f"{SECRET}!", "more than the secret was sent"),
    ],
)
def test_a_wrong_secret_is_said_to_be_wrong(value: str, named: str) -> None:
    (hint,) = of_header(value.encode(), scheme="secret_header", header="X-S")

    assert hint.startswith("the value is not the secret of a slot")
    assert named in hint
    assert SECRET not in hint


def test_a_secret_in_another_header_is_found() -> None:
    scheme = configure("secret_header", {"header": "X-S"}, tolerance_s=None)
    slot = KeySlot("current", scheme.parse_key(SECRET))
    heads = {b"authorization": f"Bearer {SECRET}".encode()}
    said = "the header authorization holds the secret: send it in x-s"

    assert hints(scheme, Raw(heads, BODY), [slot], NOW) == ["there is no header x-s", said]
    assert hints(scheme, Raw(heads | {b"x-s": b"CANARY"}, BODY), [slot], NOW) == [said]


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector.name)
def test_no_vector_breaks_it_and_what_is_accepted_has_no_hint(vector: Vector) -> None:
    found = hints(vector.scheme, vector.raw, vector.slots, vector.now)

    assert (found == []) or vector.code != VERIFIED
    for slot in vector.given["slots"]:
        assert slot["line"] not in " ".join(found)
