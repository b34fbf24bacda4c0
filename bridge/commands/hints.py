"""Why a delivery was refused, for the one who asks offline: found by trying what senders likely got wrong.

A hint never accepts anything. It answers the question which mistake would make this signature right: what was signed,
with which key, by which digest and in which encoding are varied, at most two at a time, and the fewest mistakes that
explain the signature are named. Nothing here runs in the ingress, and no sentence holds a value of the delivery or
anything of a secret.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
from base64 import b64decode, b64encode, urlsafe_b64decode
from binascii import unhexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from bridge.errors import DeliveryRefusedError
from bridge.ingress.proof import HmacKey, KeySlot, PublicKey, Raw, Scheme, SharedSecret
from bridge.ingress.schemes.body_hmac import BodyHmac
from bridge.ingress.schemes.combined import Combined
from bridge.ingress.schemes.shared import Basic, SecretHeader, UrlToken
from bridge.ingress.schemes.signed_text import SignedHeader, pairs
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks

# More explain nothing: some pair of three variations would fit too few signatures to be worth the wait.
_MISTAKES_MAX = 2
_EXACT = "sign the exact bytes that are sent"
_HOUR_S = 3600
# Clocks of two machines and the way between them.
_SKEW_S = 120
_MILLISECONDS = re.compile(rb"[0-9]{13}").fullmatch
_FRACTION = re.compile(rb"[0-9]{1,12}\.[0-9]+").fullmatch
_LABEL = re.compile(rb"(?:v[0-9]+a?|sha[0-9-]+|t)[,=:]", re.IGNORECASE).match
_QUOTES = b"\"' "
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Bytes of an HMAC by SHA-1, SHA-256 and SHA-512, and of ed25519.
_SIGNATURE_BYTES = frozenset({20, 32, 64})
# A second has a thousand milliseconds to try as the signed time; hashing this many bytes takes about a second.
_TRIED_MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Variation:
    """One thing that may have been done, and the sentence about it; empty for what is right."""

    says: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may have signed, and the sentence about it; empty for one that is right."""

    says: str
    key: HmacKey | PublicKey
    digest: str = "sha256"


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a delivery with a signature claims.

    Attributes:
        value: Of the header with the signature.
        sent_at: The timestamp; empty if there is none.
        render: The text that is right, of a timestamp and a body.
        texts: What may have been signed around a body; the first is right.
        is_hex: The encoding that is right; else base64.
        is_pairs: The header is `t=…,v1=…`.
        labels: What may rightly stand before the encoded signature.
    """

    value: bytes
    sent_at: bytes
    render: Callable[[bytes, bytes], bytes]
    texts: Sequence[tuple[str, Callable[[bytes], bytes]]]
    is_hex: bool
    is_pairs: bool
    labels: Sequence[bytes]


def hints(
    scheme: Scheme,
    raw: Raw,
    keys: Sequence[KeySlot],
    now: float,
    *,
    others: Mapping[str, Sequence[KeySlot]] = MappingProxyType({}),
) -> list[str]:
    """Return what explains that a delivery is refused, in sentences; none when nothing likely does.

    Args:
        scheme: Of the source.
        raw: As `Scheme.prove` takes it; where its heads are all that was sent, a secret in another one is found.
        keys: Of the source.
        now: Unix seconds.
        others: Keys of other sources, which may have been mistaken for them.
    """
    if isinstance(scheme, Combined):
        return [
            hint for part in scheme.parts for hint in hints(part, raw, scheme.keys_of(part, keys), now, others=others)
        ]
    try:
        scheme.prove(raw, keys, now)
    except DeliveryRefusedError as exc:
        code = exc.code
    else:
        return []
    if code in {"signature_missing", "id_malformed", "timestamp_malformed"}:
        return [*_of_heads(scheme, raw, code, now), *_elsewhere(scheme, raw, keys)]
    if code in {"timestamp_stale", "timestamp_future"}:
        return [_of_age(_timestamp(scheme, raw), now)]
    if isinstance(scheme, StandardWebhooks | SignedHeader):
        return _of_signature(_claimed(scheme, raw), raw, [*_signers(scheme, keys, now), *_foreign(others)])
    found = [*_of_shared(scheme, raw, keys, now), *_elsewhere(scheme, raw, keys)]
    return found or (list(_of_another(scheme, raw, keys)) if code != "header_duplicated" else [])


def _of_heads(scheme: Scheme, raw: Raw, code: str, now: float) -> Iterator[str]:
    """Explain what is missing or not of its form."""
    names = _names(scheme, raw)
    if code == "signature_missing":
        absent = [
            name.decode() for name in (names.signature, names.timestamp, names.id) if name and name not in raw.heads
        ]
        if isinstance(scheme, UrlToken):
            yield "the URL has no parameter with the token"
        elif absent:
            yield f"there is no header {' and no '.join(absent)}"
        return
    if code == "id_malformed":
        yield "an id is 1 to 200 printable ASCII characters without a space"
        return
    given = raw.heads.get(names.timestamp, b"")
    if _MILLISECONDS(given) and abs(int(given) / 1000 - now) < 10 * 365 * 86_400:
        yield "the timestamp is in milliseconds: send and sign whole seconds"
    elif _FRACTION(given):
        yield "the timestamp has a fraction: send and sign whole seconds"
    else:
        yield "a timestamp is unix seconds, 1 to 12 digits and nothing else"


def _of_age(timestamp: int, now: float) -> str:
    """Explain a signature that is right and of another time."""
    off_s = int(now) - timestamp
    hours, rest = divmod(abs(off_s) + _SKEW_S, _HOUR_S)
    says = f"the signature is right, and its timestamp is {abs(off_s)} s {'old' if off_s > 0 else 'ahead'}"
    if 0 < hours <= 14 and rest <= 2 * _SKEW_S:  # noqa: PLR2004 - zones are at most 14 h from UTC
        return f"{says}, about {hours} h: was a local time taken for UTC?"
    return f"{says}: sign each attempt anew, and compare the clocks (--now says when it came)"


def _of_signature(claimed: Claimed, raw: Raw, signers: Sequence[Signer]) -> list[str]:
    """Name the fewest mistakes that make one of the signatures right."""
    sent: dict[bytes, str] = {}
    for each in _decoded(claimed):
        sent.setdefault(each.value, each.says)
    bodies = list(_bodies(raw.body))
    best: list[str] | None = None
    for (text, render), body, signer in product(claimed.texts, bodies, signers):
        mistakes = [says for says in (text, body.says, signer.says) if says]
        if len(mistakes) > _MISTAKES_MAX or (best is not None and len(mistakes) >= len(best)):
            continue
        for encoding in _matches(signer, render(body.value), sent):
            found = [*mistakes, *filter(None, [encoding])]
            if best is None or len(found) < len(best):
                best = found
    if best is None:
        best = list(_of_milliseconds(claimed, raw.body, signers, sent)) or list(_of_form(claimed, signers, sent))
        return best or ["no likely mistake explains it: another secret signed, or another body than this one"]
    return best or ["the signature is right, but its text could be split elsewhere: use an id without a `.`"]


def _of_milliseconds(claimed: Claimed, body: bytes, signers: Sequence[Signer], sent: dict[bytes, str]) -> Iterator[str]:
    """Look for a time in milliseconds under the signature, where the header has its whole seconds."""
    if not claimed.sent_at.isdigit() or len(body) * 1000 > _TRIED_MAX_BYTES:
        return
    for signer, fraction in product([each for each in signers if not each.says], range(1000)):
        signed = claimed.render(b"%d%03d" % (int(claimed.sent_at), fraction), body)
        if isinstance(signer.key, HmacKey) and list(_matches(signer, signed, sent)):
            yield "milliseconds were signed, and whole seconds were sent: sign what the header has"
            return


def _of_form(claimed: Claimed, signers: Sequence[Signer], sent: dict[bytes, str]) -> Iterator[str]:
    """Tell what cannot be a signature at all by its length."""
    if signers and not any(len(each) in _SIGNATURE_BYTES for each in sent):
        size = 64 if isinstance(signers[0].key, PublicKey) or signers[0].digest == "sha512" else 32
        encoding = "hex" if claimed.is_hex else "base64"
        yield f"what was sent cannot be a signature, which is {size} bytes in {encoding}: was it cut off?"


def _matches(signer: Signer, signed: bytes, sent: dict[bytes, str]) -> Iterator[str]:
    """Yield how those signatures are encoded that this key makes of this text."""
    if isinstance(signer.key, HmacKey):
        made = hmac.digest(signer.key.secret, signed, signer.digest)
        if made in sent:
            yield sent[made]
        return
    yield from (says for each, says in sent.items() if signer.key.signed_by(each, signed))


def _claimed(scheme: StandardWebhooks | SignedHeader, raw: Raw) -> Claimed:
    heads, names = raw.heads, _names(scheme, raw)
    value, sent_at, webhook_id = (heads.get(name, b"") for name in (names.signature, names.timestamp, names.id))
    if isinstance(scheme, SignedHeader):
        text = scheme.text
        right, is_hex, labels = text.template.text, text.encoding == "hex", [text.prefix]
        is_pairs = text.format == "pairs"
        if is_pairs:
            sent_at, labels = pairs(value)[1] or b"", [b"v1="]

        def render(at: bytes, body: bytes) -> bytes:
            return text.template.render(webhook_id, at, body)
    else:
        right, is_hex, is_pairs, labels = "{id}.{timestamp}.{body}", False, False, [b"v1,", b"v1a,"]

        def render(at: bytes, body: bytes) -> bytes:
            return b".".join((webhook_id, at, body))

    texts: dict[str, Callable[[bytes], bytes]] = {right: lambda body: render(sent_at, body)}
    texts |= {
        each: lambda body, each=each: _fill(each, webhook_id, sent_at, body)  # type: ignore[misc]  # a default as a closure
        for each in _texts(has_id=bool(webhook_id), has_time=bool(sent_at))
        if each not in texts
    }
    if other := _id_in_body(raw.body, webhook_id):
        texts["the id of the body"] = lambda body: _fill(right, other, sent_at, body)
    said = [(f"{each} was signed: sign {right}" if each != right else "", made) for each, made in texts.items()]
    return Claimed(value, sent_at, render, said, is_hex, is_pairs, labels)


def _texts(*, has_id: bool, has_time: bool) -> Iterator[str]:
    yield "{body}"
    if has_time:
        yield from ("{timestamp}.{body}", "{timestamp}{body}")
    if has_id:
        yield "{id}.{body}"
    if has_id and has_time:
        yield from ("{id}.{timestamp}.{body}", "{timestamp}.{id}.{body}", "{id}{timestamp}{body}")


def _fill(template: str, webhook_id: bytes, sent_at: bytes, body: bytes) -> bytes:
    before = template.removesuffix("{body}").encode()
    return before.replace(b"{id}", webhook_id).replace(b"{timestamp}", sent_at) + body


def _id_in_body(body: bytes, webhook_id: bytes) -> bytes:
    """Return the id that stands in the body where it is another one than the delivery's; else nothing."""
    document = _document(body)
    found = document.get("id") if isinstance(document, dict) else None
    text = found.encode("utf-8", "surrogatepass") if isinstance(found, str) else b""
    return b"" if text == webhook_id or not webhook_id else text


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _bodies(body: bytes) -> Iterator[Variation]:
    """Yield the body, and what a sender may have signed instead of it; each once."""
    seen: set[bytes] = set()
    for each in _variations(body):
        if each.value not in seen:
            seen.add(each.value)
            yield each


def _variations(body: bytes) -> Iterator[Variation]:
    yield Variation("", body)
    for end in (b"\n", b"\r\n"):
        yield Variation(f"the body that was signed has a line break more at its end: {_EXACT}", body + end)
    yield Variation(f"the body that was signed has no line break at its end: {_EXACT}", body.rstrip(b"\r\n"))
    yield Variation(f"the body that was signed has no white space around it: {_EXACT}", body.strip())
    yield Variation(f"the body that was signed has no byte order mark: {_EXACT}", body.removeprefix(_BYTE_ORDER_MARK))
    yield Variation(f"the body that was signed has a byte order mark before it: {_EXACT}", _BYTE_ORDER_MARK + body)
    yield Variation(f"the body that was signed has other line breaks: {_EXACT}", body.replace(b"\r\n", b"\n"))
    yield Variation(f"the body that was signed has other line breaks: {_EXACT}", body.replace(b"\n", b"\r\n"))
    yield Variation("an empty body was signed", b"")
    if (document := _document(body)) is not None:
        for how, text in _written_anew(document):
            says = f"the JSON was signed in another form ({how}) than it was sent: {_EXACT}"
            try:
                yield Variation(says, text.encode())
            except UnicodeEncodeError:  # a lone surrogate
                continue


def _written_anew(document: object) -> Iterator[tuple[str, str]]:
    """Yield what the writers of other languages make of a document."""
    for (spaces, separators), is_sorted, is_ascii in product(
        (("compact", (",", ":")), ("with spaces", (", ", ": "))), (False, True), (False, True)
    ):
        how = ", ".join([spaces, *(["keys sorted"] if is_sorted else [])])
        text = json.dumps(document, separators=separators, sort_keys=is_sorted, ensure_ascii=is_ascii)
        yield how, text
        if spaces == "compact":
            yield f"{how}, as PHP", text.replace("/", "\\/")
            yield f"{how}, as Go", text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    for indent in (2, 4, "\t"):
        yield "indented", json.dumps(document, indent=indent, ensure_ascii=False)


def _signers(scheme: Scheme, keys: Sequence[KeySlot], now: float) -> Iterator[Signer]:
    """Yield the keys that may have signed, the right ones first."""
    hmac_keys: list[tuple[str, HmacKey]] = []
    for slot in keys:
        says = "" if slot.counts_at(now) else _outside(slot, now)
        if isinstance(slot.key, HmacKey):
            hmac_keys.append((says, slot.key))
            yield Signer(says, slot.key, slot.key.digestmod)
        elif isinstance(slot.key, PublicKey):
            yield Signer(says, slot.key)
    for says, key in hmac_keys:
        if says:
            continue
        for digest in ("sha1", "sha256", "sha512"):
            if digest != key.digestmod:
                yield Signer(f"HMAC-{digest.upper()} was used: use HMAC-{key.digestmod.upper()}", key, digest)
        for how, secret in _mistaken_secrets(scheme, key.secret):
            yield Signer(how, HmacKey(secret, key.digestmod), key.digestmod)


def _foreign(others: Mapping[str, Sequence[KeySlot]]) -> Iterator[Signer]:
    for name, keys in others.items():
        for slot in keys:
            says = f"the key of source {name} in slot {slot.name} signed"
            if isinstance(slot.key, HmacKey):
                yield Signer(says, slot.key, slot.key.digestmod)
            elif isinstance(slot.key, PublicKey):
                yield Signer(says, slot.key)


def _mistaken_secrets(scheme: Scheme, secret: bytes) -> Iterator[tuple[str, bytes]]:
    text = b64encode(secret)
    if isinstance(scheme, StandardWebhooks):
        says = "the text of the secret was the key: the key is the bytes that the base64 after whsec_ stands for"
        yield from ((says, each) for each in (b"whsec_" + text, text, text.rstrip(b"=")))
    elif isinstance(scheme, BodyHmac):
        encoding = scheme.key_encoding
        if encoding == "utf8":
            for name, decode in (("hex", unhexlify), ("base64", b64decode)):
                try:
                    yield f"the secret was decoded from {name}: its text itself is the key", decode(secret)
                except ValueError:
                    continue
        else:
            text = secret.hex().encode() if encoding == "hex" else text
            yield f"the text of the secret was the key: decode it from {encoding} first", text
    yield "a line break was part of the secret: take its first line without it", secret + b"\n"


def _outside(slot: KeySlot, now: float) -> str:
    if slot.accept_until < now:
        return f"the key in slot {slot.name} signed, which counted until {_instant(slot.accept_until)}"
    return f"the key in slot {slot.name} signed, which counts from {_instant(slot.not_before)} on"


def _instant(at: float) -> str:
    if at in {float("inf"), float("-inf")}:
        return "ever"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _decoded(claimed: Claimed) -> Iterator[Variation]:
    """Yield what the header may stand for, decoded, the right form first."""
    elements = filter(None, claimed.value.split(b"," if claimed.is_pairs else b" "))
    right = "hex" if claimed.is_hex else "base64"
    for element in elements:
        bare = element.strip(_QUOTES)
        right_label = next((each for each in claimed.labels if bare.startswith(each)), None)
        unlabelled = _unlabelled(bare)
        if right_label is None:
            label, bare = f"`{claimed.labels[0].decode()}` is missing before the signature", unlabelled
        elif not right_label and unlabelled != bare:
            label, bare = "a label stands before the signature, which the source does not expect", unlabelled
        else:
            label, bare = "", bare[len(right_label) :]
        for says, value in _bytes_of(bare, right):
            yield Variation("; ".join(filter(None, (label, says))), value)


def _unlabelled(element: bytes) -> bytes:
    found = _LABEL(element)
    return element[found.end() :] if found else element


def _bytes_of(text: bytes, right: str) -> Iterator[tuple[str, bytes]]:
    """Decode a signature in each way that a sender may have encoded it."""
    for name, decode in (
        ("hex", unhexlify),
        ("base64", lambda each: b64decode(each, validate=True)),
        ("base64 without its padding", lambda each: b64decode(each + b"=" * (-len(each) % 4), validate=True)),
        ("URL-safe base64", lambda each: urlsafe_b64decode(each + b"=" * (-len(each) % 4))),
    ):
        try:
            value = decode(text)
        except ValueError:
            continue
        is_right = name == right and (name != "hex" or text == text.lower())
        wrong = "hex in capital letters" if name == right == "hex" else name
        yield "" if is_right else f"the signature is written in {wrong}: write it in {right}", value
        if name.startswith("base64"):
            try:
                yield "the signature is the base64 of its hex text: encode its bytes", unhexlify(value)
            except ValueError:
                continue


def _of_shared(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot], now: float) -> Iterator[str]:
    """Explain a secret that was sent itself."""
    for form in _sent_forms(scheme, _shared_value(scheme, raw)):
        for slot in keys:
            if isinstance(slot.key, SharedSecret) and slot.key.equals(sha256(form.value).digest()):
                outside = "" if slot.counts_at(now) else _outside(slot, now)
                yield "; ".join(filter(None, (form.says, outside)))
                return


def _elsewhere(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot]) -> Iterator[str]:
    """Find a secret that stands in another header than its own."""
    if not isinstance(scheme, SecretHeader):
        return
    for name, value in raw.heads.items():
        if name != scheme.header and any(_equals(keys, each) for each in (value, value.partition(b" ")[2])):
            yield f"the header {name.decode('ascii', 'replace')} holds the secret: send it in {scheme.header.decode()}"


def _of_another(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot]) -> Iterator[str]:
    """Say of a secret that no slot has what may be said of it."""
    if not isinstance(scheme, SecretHeader | Basic | UrlToken):
        return
    sent = [form.value for form in _sent_forms(scheme, _shared_value(scheme, raw))]
    secrets = [slot.key.secret for slot in keys if isinstance(slot.key, SharedSecret)]
    why = ""
    if isinstance(scheme, Basic):  # of base64 none of this means much
        pass
    elif any(each.lower() == secret.lower() for each, secret in product(sent, secrets)):
        why = ": capital and small letters differ"
    elif any(each and secret.startswith(each) for each, secret in product(sent, secrets)):
        why = ": only its beginning was sent"
    elif any(secret in each for each, secret in product(sent, secrets)):
        why = ": more than the secret was sent"
    elif not {len(each) for each in sent} & set(map(len, secrets)):
        why = ", and has another length"
    yield f"the value is not the secret of a slot{why}"


def _shared_value(scheme: Scheme, raw: Raw) -> bytes:
    if isinstance(scheme, UrlToken):
        return raw.query.rpartition(b"=")[2]
    return raw.heads.get(_names(scheme, raw).signature, b"")


def _equals(keys: Sequence[KeySlot], text: bytes) -> bool:
    return any(isinstance(slot.key, SharedSecret) and slot.key.equals(sha256(text).digest()) for slot in keys)


def _sent_forms(scheme: Scheme, value: bytes) -> Iterator[Variation]:
    word, _, rest = value.partition(b" ")
    expected = b"Basic" if isinstance(scheme, Basic) else scheme.word if isinstance(scheme, SecretHeader) else b""
    bare = [("", value)]
    if expected and word.lower() == expected.lower():
        bare = [("", rest.strip())]
    elif expected:
        bare = [(f"the word `{expected.decode()}` is missing before it, which the source expects", value)]
    elif rest:
        bare.append(("a word stands before it, which the source does not expect", rest.strip()))
    for says, text in bare:
        for how, form in _spellings(scheme, text):
            yield Variation("; ".join(filter(None, (says, how))), form)


def _spellings(scheme: Scheme, text: bytes) -> Iterator[tuple[str, bytes]]:
    yield "", text
    yield "quotes are part of what was sent", text.strip(_QUOTES)
    yield "it was sent percent-encoded", unquote_to_bytes(text)
    if isinstance(scheme, Basic):
        yield "user and password were sent as they are: send their base64", b64encode(text)
        return
    with contextlib.suppress(ValueError):
        yield "it was sent in base64: send it as it is", b64decode(text, validate=True)


@dataclass(frozen=True, slots=True)
class _Names:
    """The headers of a scheme, in lower case; empty for those that it has not."""

    signature: bytes
    timestamp: bytes = b""
    id: bytes = b""

    def are_in(self, heads: Mapping[bytes, bytes]) -> bool:
        """Say whether a delivery has all three."""
        return {self.signature, self.timestamp, self.id} <= heads.keys()


def _names(scheme: Scheme, raw: Raw) -> _Names:
    if isinstance(scheme, StandardWebhooks):
        standard = _Names(b"webhook-signature", b"webhook-timestamp", b"webhook-id")
        svix = _Names(b"svix-signature", b"svix-timestamp", b"svix-id")
        return svix if svix.signature in raw.heads and not standard.are_in(raw.heads) else standard
    if isinstance(scheme, SignedHeader):
        return _Names(scheme.text.header, scheme.text.timestamp_header, scheme.text.id_header)
    return _Names(next(iter(scheme.headers), b""))


def _timestamp(scheme: Scheme, raw: Raw) -> int:
    """Return the time of a delivery whose signature is right."""
    names = _names(scheme, raw)
    return int(raw.heads[names.timestamp] if names.timestamp else pairs(raw.heads[names.signature])[1] or b"")
