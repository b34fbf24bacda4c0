"""Every scheme with vectors, altered deliveries, hostile headers and rotated keys."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.ingress.headers import header_rules
from bridge.proof.origin import HEADERS as ORIGIN_HEADERS
from bridge.proof.scheme import SIGNATURE_MAX_BYTES, HmacKey, KeySlot, ProofKey, PublicKey, Raw, ReplayKey, SharedSecret
from bridge.proof.schemes.parameters import ParameterError
from bridge.proof.schemes.presets import configure
from bridge.proof.secrets import load
from bridge.response_codes import REFUSED, UNKNOWN_KEY
from bridge.runtime.secret_files import SecretsError
from tests.fuzz.schemes import check_proved
from tests.schemes import VERIFIED, Vector, vectors, verdict

VECTORS = vectors()
GOOD = [vector for vector in VECTORS if vector.code == VERIFIED]
# What a scheme signs: of these no bit may change.
SIGNING = ("standard_webhooks", "body_hmac", "ed25519")


def named(vector: Vector) -> str:
    return vector.name


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_each_vector_is_decided_as_it_says(vector: Vector) -> None:
    slots = (*vector.slots, KeySlot("replay", ReplayKey(b"k" * 32)))
    assert verdict(vector.scheme, vector.raw, slots, vector.now) == vector.code


@pytest.mark.parametrize("vector", GOOD, ids=named)
def test_what_is_proved_is_what_the_vector_says(vector: Vector) -> None:
    proof = vector.scheme.verify(vector.raw, vector.slots, vector.now)

    given = vector.given
    assert (proof.id, proof.timestamp, proof.slot) == (given.get("id"), given.get("timestamp"), given["slot"])
    assert (proof.id is not None and proof.id_signed) == (vector.scheme.ids == "signed")


@pytest.mark.parametrize("vector", GOOD, ids=named)
def test_no_change_of_a_bit_proves_another_delivery(vector: Vector) -> None:
    """One that does not count may change, such as in a second signature or in the id of a scheme that signs none."""
    raw = vector.raw
    changed = [raw._replace(body=body) for body in flipped(raw.body)]
    for name, value in raw.headers.items():
        changed += [raw._replace(headers={**raw.headers, name: other}) for other in flipped(value)]

    for each in changed:
        if verdict(vector.scheme, each, vector.slots, vector.now) == VERIFIED:
            check_proved(vector, each)


def flipped(content: bytes) -> Iterator[bytes]:
    """Yield the content with one bit changed: of each byte another than of the one before."""
    for at, byte in enumerate(content):
        yield content[:at] + bytes([byte ^ 1 << at % 8]) + content[at + 1 :]


# Everything that a separator can stand before, between and after, in an id and at the beginning of a body.
IDS = ("d", "d.1789398570", "d.1789398570.x", "d.7", "d.", "a..7", "1.2")
BODIES = (b"7.5", b'["1.1789398570.3"]', b"1789398570.{}", b".7.", b"x.7.y", b"", b"5{}", b"1.{}")
TEMPLATES = (
    *("{id}.{timestamp}.{body}", "{timestamp}.{id}.{body}", "{id}.{body}", "{timestamp}.{body}", "{timestamp}{body}"),
    *("v0.{timestamp}.{body}", "v {id}..{body}", "{method}{url}{body}{timestamp}", "{id}.{body}{timestamp}"),
)


@pytest.mark.parametrize(
    ("name", "template"),
    [("standard_webhooks", "{id}.{timestamp}.{body}"), *(("body_hmac", template) for template in TEMPLATES)],
)
def test_signed_text_cannot_be_split_in_another_place(name: str, template: str) -> None:
    """Of all deliveries with one signed text at most the true one is proved, and a plain one always is."""
    parameters = {"header": "webhook-signature", "template": template, "encoding": "base64", "prefix": "v1,"}
    parameters |= {f"{part}_header": f"webhook-{part}" for part in ("id", "timestamp") if f"{{{part}}}" in template}
    parameters |= {"url": "https://1.example/1"} if "{url}" in template else {}
    template = template.replace("{method}", "POST").replace("{url}", "https://1.example/1")
    scheme = configure(name, parameters if name == "body_hmac" else {}, tolerance_s=None)
    key = HmacKey(b"k" * 32)
    for webhook_id, body in product(IDS, BODIES):
        true = {"id": webhook_id.encode(), "timestamp": b"1789398570", "body": body}
        text = filled(template, true)
        signature = b"v1," + b64encode(key.digest(text))
        wanted = {part: true[part] for part in true if f"{{{part}}}" in template}
        proved = []
        for other in readings(template, text):
            heads = {f"webhook-{part}".encode(): other.get(part, b"") for part in ("id", "timestamp")}
            raw = Raw(heads | {b"webhook-signature": signature}, other["body"])
            if verdict(scheme, raw, [KeySlot("current", key)], 0) == VERIFIED:
                proved.append(other)
        assert proved == [wanted] or (proved == [] and not (webhook_id == "d" and body.startswith(b"[")))


def filled(template: str, values: dict[str, bytes]) -> bytes:
    text = template.encode()
    for name in ("id", "timestamp", "body"):
        text = text.replace(f"{{{name}}}".encode(), values[name], 1)
    return text


def readings(template: str, text: bytes) -> Iterator[dict[str, bytes]]:
    """Yield every way to read a text by a template."""
    head, _, rest = template.partition("{")
    if not text.startswith(head.encode()):
        return
    text = text[len(head) :]
    name, _, rest = rest.partition("}")
    if name == "body" and not rest:
        yield {"body": text}
        return
    if not rest:
        yield {name: text}
        return
    for end in range(len(text) + 1):
        for others in readings(rest, text[end:]):
            yield {name: text[:end], **others}


@pytest.mark.parametrize("vector", [each for each in GOOD if each.scheme.name in SIGNING], ids=named)
def test_a_header_longer_than_http_carries_is_refused(vector: Vector) -> None:
    heads = {name: value + b" " * (SIGNATURE_MAX_BYTES + 1) for name, value in vector.raw.headers.items()}

    assert verdict(vector.scheme, vector.raw._replace(headers=heads), vector.slots, vector.now) in REFUSED


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every computation with a key, and how much it computed of."""
    done: list[str] = []
    for kind, name in ((HmacKey, "digest"), (PublicKey, "signed_by"), (SharedSecret, "equals")):
        monkeypatch.setattr(kind, name, counted(getattr(kind, name), done))
    return done


def counted(method: Callable[..., Any], done: list[str]) -> Callable[..., Any]:
    def call(key: ProofKey, *given: bytes) -> Any:
        done.append(f"{method.__qualname__} of {len(given[-1])}")
        return method(key, *given)

    return call


# In hex they stay hex.
_OTHERS = bytes.maketrans(b"01abefst", b"10bafets")


def wrong(vector: Vector) -> Raw:
    """Return the delivery with a credential of the right form that proves nothing."""
    raw = vector.raw
    heads = {name: _wrong_value(value) for name, value in raw.headers.items()}
    unsigned = {name: raw.headers[name] for name in vector.scheme.safe if name in raw.headers}
    return Raw({**heads, **unsigned}, raw.body, _wrong_value(raw.query), raw.peer)


def _wrong_value(value: bytes) -> bytes:
    at = max(value.rfind(b"="), value.rfind(b","), value.rfind(b" "), value.rfind(b"."), 0)
    at = at if len(value) - at > 8 else 0
    return value[: at + 8] + value[at + 8 :].translate(_OTHERS)


REPRESENTATIVES = [
    next(each for each in GOOD if each.given["scheme"] == scheme)
    for scheme in dict.fromkeys(each.given["scheme"] for each in GOOD if each.scheme.keyed)
]


@pytest.mark.parametrize("vector", REPRESENTATIVES, ids=named)
def test_the_work_does_not_depend_on_the_outcome(vector: Vector, work: list[str]) -> None:
    """Counted, not timed: match, mismatch and closed window compute the same."""
    slots = (*vector.slots, *vector.slots)
    closed = [replace(slot, accept_until=0) for slot in slots]
    outcomes = []

    for keys, raw in [(slots, vector.raw), (slots, wrong(vector)), (closed, vector.raw)]:
        work.clear()
        outcomes.append((verdict(vector.scheme, raw, keys, vector.now), work.copy()))

    codes, done = zip(*outcomes, strict=True)
    assert codes == (VERIFIED, "signature_mismatch", "signature_mismatch")
    assert done[0]
    assert done[0] == done[1] == done[2]


@pytest.mark.parametrize("vector", [each for each in REPRESENTATIVES if each.scheme.name in SIGNING], ids=named)
def test_a_key_of_another_kind_proves_nothing(vector: Vector) -> None:
    slots = [replace(slot, key=SharedSecret(b"k" * 32)) for slot in vector.slots]

    assert verdict(vector.scheme, vector.raw, slots, vector.now) == "signature_mismatch"


def test_a_mismatch_where_no_key_counts_has_a_reason_of_its_own() -> None:
    vector, reasons = REPRESENTATIVES[0], []
    for slots in (vector.slots, [replace(slot, accept_until=0) for slot in vector.slots]):
        with pytest.raises(DeliveryRefusedError) as refused:
            vector.scheme.verify(wrong(vector), slots, vector.now)
        reasons.append(refused.value.reason)

    assert reasons == [REFUSED["signature_mismatch"].proof, UNKNOWN_KEY]


def test_a_slot_file_of_a_combination_has_a_line_for_each_secret(tmp_path: Path) -> None:
    scheme = configure("github + basic", {}, tolerance_s=300)
    where = tmp_path / "current"
    where.write_text("sixteen-letters!\naccept_until = 2030-01-01T00:00:00Z\nbasic = drx:a-long-password\n")

    (slot,) = load(tmp_path, scheme)

    assert isinstance(slot.key, tuple)
    assert [type(key) for key in slot.key] == [HmacKey, SharedSecret]
    token = {"issuer": "https://a.example", "audience": "https://b.example", "algorithms": "HS256,"}
    token["jwks_url"] = "https://a.example/keys"
    pairs = [configure(name, token, tolerance_s=300) for name in ("jwt+basic", "basic+jwt")]
    assert [(each.multiline, bool(each.jwks_url)) for each in pairs] == [(True, True), (False, True)]
    where.write_text("-".join(["a-secret-of-32-bytes-or-more"] * 2) + "\nbasic = drx:a-long-password\n")
    (slot,) = load(tmp_path, configure("jwt+basic", token, tolerance_s=300))
    assert isinstance(slot.key, tuple)
    assert type(slot.key[1]) is SharedSecret
    several = configure("url_token+standard_webhooks+github", {}, tolerance_s=300)
    assert (several.dated, several.ids, several.reads_query) == (True, "signed", True)

    where.write_text("a-secret-of-many-characters")
    with pytest.raises(SecretsError, match="has no line `basic"):
        load(tmp_path, scheme)


@pytest.mark.parametrize(
    ("scheme", "line"),
    [
        ("body_hmac", "fifteen-letters"),
        ("body_hmac", "invisible\u200bcharacters"),
        ("ed25519", "00" * 31),
        ("secret_header", "fifteen-letters"),
        ("basic", "no-colon-but-long-enough"),
        ("basic", "user:too-short"),
        ("basic", ":a-password-without-user"),
        ("url_token", "only-twenty-three-letter"[:23]),
    ],
)
def test_a_secret_that_is_too_weak_or_malformed_is_refused_without_being_shown(scheme: str, line: str) -> None:
    parameters = {"header": "x-s"} if scheme in {"body_hmac", "ed25519"} else {}

    with pytest.raises(ConfigError) as caught:
        configure(scheme, parameters, tolerance_s=300).parse_key(line)

    assert line not in str(caught.value)


HEADED = {"header": "X-S"}
DATED = HEADED | {"timestamp_header": "X-T"}
PAIRS = HEADED | {"format": "pairs", "template": "{timestamp}.{body}"}


@pytest.mark.parametrize(
    ("scheme", "parameters", "parameter"),
    [
        ("hmac", {}, "scheme"),
        ("", {}, "scheme"),
        ("body_hmac", {}, "scheme_header"),
        ("cidr", {}, "scheme_networks"),
        ("cidr", {"networks": ","}, "scheme_networks"),
        ("cidr", {"networks": "192.0.2.1/24"}, "scheme_networks"),
        ("cidr", {"networks": "10.0.0.0/8", "trusted_proxies": "x"}, "scheme_trusted_proxies"),
        ("photon", {}, "scheme_template"),
        ("github", {"heder": "X-Other"}, "scheme_heder"),
        ("secret_header", {"digest": "sha256"}, "scheme_digest"),
        ("stripe+github", {}, "scheme"),
        ("secret_header", {"header": ""}, "scheme_header"),
        ("secret_header", {"header": "a b"}, "scheme_header"),
        ("secret_header", {"header": "Content-Type"}, "scheme_header"),
        ("secret_header", {"word": "two words"}, "scheme_word"),
        ("url_token", {"param": "a&b"}, "scheme_param"),
        ("body_hmac", HEADED | {"digest": "md5"}, "scheme_digest"),
        ("body_hmac", HEADED | {"format": "json"}, "scheme_format"),
        ("body_hmac", HEADED | {"template": "{boddy}"}, "scheme_template"),
        ("body_hmac", HEADED | {"template": "{body}."}, "scheme_template"),
        ("body_hmac", HEADED | {"template": "{id}{body}", "id_header": "X-I"}, "scheme_template"),
        ("body_hmac", HEADED | {"template": "{id}.{body}"}, "scheme_id_header"),
        ("body_hmac", HEADED | {"template": "{id} {body}", "id_header": "X-I"}, "scheme_template"),
        ("body_hmac", HEADED | {"template": "{timestamp}.{body}"}, "scheme_timestamp_header"),
        ("body_hmac", DATED | {"template": "{timestamp}0{body}"}, "scheme_template"),
        ("body_hmac", DATED | {"id_header": "X-I", "template": "{timestamp}{id}.{body}"}, "scheme_template"),
        ("body_hmac", DATED | {"id_header": "X-I", "template": "{id}.{timestamp}{body}"}, "scheme_template"),
        ("body_hmac", DATED | {"template": "{timestamp}"}, "scheme_template"),
        ("body_hmac", HEADED | {"format": "pairs"}, "scheme_template"),
        ("body_hmac", PAIRS | {"prefix": "v1="}, "scheme_format"),
        ("body_hmac", HEADED | {"id_header": "x-s"}, "scheme_header"),
        ("body_hmac", HEADED | {"signature_name": "s"}, "scheme_signature_name"),
        ("body_hmac", PAIRS | {"signature_name": "t"}, "scheme_signature_name"),
        ("body_hmac", PAIRS | {"time_name": "a b"}, "scheme_time_name"),
        ("body_hmac", PAIRS | {"pair_separator": "="}, "scheme_pair_separator"),
        ("ed25519", PAIRS | {"time_unit": "us"}, "scheme_time_unit"),
        ("ed25519", HEADED | {"digest": "sha1"}, "scheme_digest"),
        ("body_hmac", HEADED | {"template": "{url}{body}"}, "scheme_url"),
        ("body_hmac", HEADED | {"template": "{path}{body}", "url": "/webhooks/x"}, "scheme_url"),
        ("body_hmac", HEADED | {"template": "{url}{body}", "url": "https://x/{id}"}, "scheme_url"),
        ("body_hmac", PAIRS | {"template": "{body}{timestamp}."}, "scheme_template"),
        ("body_hmac", PAIRS | {"template": "{timestamp}{url}{body}", "url": "1"}, "scheme_url"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(scheme: str, parameters: dict[str, str], parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        configure(scheme, parameters, tolerance_s=300)

    assert caught.value.parameter == parameter
    assert "\n" not in str(caught.value)


def test_a_preset_is_its_kind_with_parameters_that_a_source_may_set_otherwise() -> None:
    ours = {"header": "Acme-Signature", "format": "pairs", "template": "{timestamp}.{body}"}

    preset = configure("stripe", {"header": "Acme-Signature"}, tolerance_s=300)

    assert preset.describe() == configure("body_hmac", ours, tolerance_s=300).describe()
    with pytest.raises(ParameterError, match="stripe is body_hmac with scheme_header=Stripe-Signature, scheme_for"):
        configure("stripe", {"heder": "Acme-Signature"}, tolerance_s=300)


def test_headers_of_all_schemes_are_single_but_what_proxies_add_to() -> None:
    proxied = {"networks": "192.0.2.0/24", "trusted_proxies": "10.0.0.0/8"}
    rules = header_rules([configure("secret_header", {}, tolerance_s=1), configure("cidr", proxied, tolerance_s=1)])

    assert rules.single == {b"x-webhook-secret", *ORIGIN_HEADERS}
    assert {b"x-webhook-secret", b"x-forwarded-for", b"content-type"} <= rules.wanted


@pytest.mark.parametrize("vector", REPRESENTATIVES, ids=named)
def test_nothing_that_is_shown_of_a_scheme_or_a_key_is_a_secret(vector: Vector) -> None:
    shown = vector.scheme.describe() + repr(vector.slots)

    for slot in vector.given["slots"]:
        for line in (slot["line"], *slot.get("further", {}).values()):
            assert line not in shown
            assert sha256(line.encode()).hexdigest() not in shown
