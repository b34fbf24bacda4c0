"""Explain why a delivery was refused: try the usual mistakes of senders one by one until it verifies.

Of the key and headers: a time in milliseconds, a wrong clock, hex for base64, no `v1,`, the key's text as the key. Of
the body: a line break at the end, JSON that was serialised again or compacted, line breaks that curl left out. What is
old is tried as of its own time, too. A hint accepts nothing, nothing here runs in the ingress, and no sentence holds a
value of the delivery or anything of a secret.
"""

import contextlib
import json
import re
from binascii import a2b_base64, b2a_base64, unhexlify
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from bridge.errors import DeliveryRefusedError
from bridge.proof.scheme import HmacKey, KeySlot, ProofKey, Raw, Scheme

_EXACT = "sign the exact bytes that are sent"
_seconds = re.compile(rb"(?<![0-9])[0-9]{9,11}(?![0-9])").findall
_milliseconds = re.compile(rb"(?<![0-9])[0-9]{13}(?![0-9])").search
# What a SHA-256 and a SHA-512 or ed25519 signature look like.
_HEX = re.compile(rb"\b(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{64})\b")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=")
_NO_VERSION = re.compile(rb"^(?:v1=)?([A-Za-z0-9+/]{43}=)$")


def hint(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot], now: float) -> str:
    """Return which mistake explains that a delivery is refused; empty if it is not, or if none does."""
    code = _refusal(scheme, raw, keys, now)
    if code == "timestamp_malformed" and any(map(_milliseconds, raw.heads.values())):
        return "the timestamp is in milliseconds: send and sign whole seconds"
    if code:
        for text, changed, slots, at in _changes(raw, keys, now):
            if not _refusal(scheme, changed, slots, at):
                return text
    return ""


def _changes(raw: Raw, keys: Sequence[KeySlot], now: float) -> Iterator[tuple[str, Raw, Sequence[KeySlot], float]]:
    times = list(_times(raw, now))
    anew = "compare the clocks, and sign each attempt anew (--now says when it came)"
    yield from ((f"the signature is right, and its time is {age}: {anew}", raw, keys, at) for age, at in times)
    mistakes = [(text, changed, keys) for text, changed in (*_bodies(raw), *_encodings(raw))]
    mistakes += [(text, raw, slots) for text, slots in _keys(keys)]
    yield from ((*mistake, now) for mistake in mistakes)
    for age, at in times:
        beside = f"; and the timestamp is {age}: `--now TIMESTAMP` checks it as of then"
        yield from ((text + beside, changed, slots, at) for text, changed, slots in mistakes)


def _refusal(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot], now: float) -> str:
    try:
        scheme.prove(raw, keys, now)
    except DeliveryRefusedError as exc:
        return exc.code
    return ""


def _times(raw: Raw, now: float) -> Iterator[tuple[str, float]]:
    for value in raw.heads.values():
        for found in _seconds(value):
            off_s = int(now) - int(found)
            yield f"{abs(off_s)} s {'old' if off_s > 0 else 'ahead'}", float(found)


def _bodies(raw: Raw) -> Iterator[tuple[str, Raw]]:
    body = raw.body
    yield f"only the signed body has a line break at its end: {_EXACT}", raw._replace(body=body + b"\n")
    yield f"the body that was signed has no line break at its end: {_EXACT}", raw._replace(body=body.rstrip(b"\r\n"))
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    spaces = ((None, (",", ":")), (None, (", ", ": ")), *((indent, (",", ": ")) for indent in (2, 4, "\t")))
    for (indent, separators), is_sorted, is_ascii in product(spaces, (False, True), (False, True)):
        text = json.dumps(document, indent=indent, separators=separators, sort_keys=is_sorted, ensure_ascii=is_ascii)
        written = text.encode("utf-8", "surrogatepass")
        why = f"the JSON was serialised again between signing and sending: {_EXACT}"
        if indent and written.replace(b"\n", b"") == body:
            why = "line breaks of the signed body were not sent: curl -d drops them, --data-binary does not"
        for end in (b"", b"\n"):
            yield why, raw._replace(body=written + end)


def _encodings(raw: Raw) -> Iterator[tuple[str, Raw]]:
    for name, value in raw.heads.items():
        for text, written in (
            ("hex: write it in base64", _HEX.sub(lambda found: b2a_base64(unhexlify(found[0]), newline=False), value)),
            ("base64: write it in hex", _BASE64.sub(lambda found: a2b_base64(found[0]).hex().encode(), value)),
            ("base64 alone: write `v1,` before it", _NO_VERSION.sub(rb"v1,\1", value)),
        ):
            yield f"the signature is written in {text}", raw._replace(heads={**raw.heads, name: written})


def _keys(slots: Sequence[KeySlot]) -> Iterator[tuple[str, Sequence[KeySlot]]]:
    for slot in slots:
        for text, key in _mistaken(slot.key):
            yield text, [replace(slot, key=key)]


def _mistaken(key: ProofKey) -> Iterator[tuple[str, ProofKey]]:
    if isinstance(key, tuple):
        for place, part in enumerate(key):
            yield from ((text, (*key[:place], each, *key[place + 1 :])) for text, each in _mistaken(part))
    elif isinstance(key, HmacKey):
        text = b2a_base64(key.secret, newline=False)
        for written in (text, b"whsec_" + text, key.secret.hex().encode()):
            yield "the secret's text was used as the key: decode it first", HmacKey(written, key.digestmod)
        for decode in (unhexlify, a2b_base64):
            with contextlib.suppress(ValueError):
                yield "the secret was decoded: use its text as the key", HmacKey(decode(key.secret), key.digestmod)
        yield "a line break was part of the secret: strip it", HmacKey(key.secret + b"\n", key.digestmod)
