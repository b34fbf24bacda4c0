"""Explain why a delivery was refused: undo common mistakes of senders and parameters until it verifies.

Mistakes of key and headers: a time in milliseconds, a wrong clock, hex for base64, no `v1,`, the key's text as the key.
Mistakes of the body: a line break at the end, JSON that was serialised again or compacted, line breaks that curl
dropped. An old delivery is also tried as of its own time. Parameters are guessed from the form of the delivery's
headers. Hints are for commands alone and never make the ingress accept anything; they contain no value of a delivery or
secret.
"""

import contextlib
import json
import re
from binascii import a2b_base64, b2a_base64, unhexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from bridge.commands.scheme_options import AskedScheme, refusal_of
from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.proof.scheme import HmacKey, KeySlot, ProofKey, Raw, Scheme
from bridge.proof.schemes.body_hmac import DIGEST_BYTES, BodyHmac
from bridge.proof.schemes.presets import configure
from bridge.proof.schemes.signed_text import PAIR_SEPARATORS, SignedHeader

_EXACT = "sign the exact bytes that are sent"
_seconds = re.compile(rb"(?<![0-9])[0-9]{9,11}(?![0-9])").findall
_milliseconds = re.compile(rb"(?<![0-9])[0-9]{13}(?![0-9])").search
# Lengths of encoded signatures: SHA-256, and SHA-512 or ed25519.
_HEX = re.compile(rb"\b(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{64})\b")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=")
# Texts that vendors sign, the most common first.
_TEMPLATES = (
    *("{timestamp}.{body}", "{body}", "{timestamp}:{body}", "v0:{timestamp}:{body}", "{timestamp}{body}"),
    *("{body}{timestamp}", "{url}{body}", "{method}{url}{body}", "{method}{url}{body}{timestamp}"),
)
_PAIRS = ("time_name", "signature_name", "pair_separator")
_prefix = re.compile(r"(?:[A-Za-z0-9]{1,10}[=,:] ?)?").match
_NO_VERSION = re.compile(rb"^(?:v1=)?([A-Za-z0-9+/]{43}=)$")


def hint(scheme: Scheme, raw: Raw, keys: Sequence[KeySlot], now: float) -> str:
    """Return the mistake that explains a refusal; empty if the delivery verifies or no mistake explains it."""
    code = refusal_of(scheme, raw, keys, now)
    if code == "timestamp_malformed" and any(map(_milliseconds, raw.headers.values())):
        return "the timestamp is in milliseconds: send and sign whole seconds, or set SCHEME_TIME_UNIT=ms"
    if code and (faults := getattr(scheme, "faults", None)):
        with contextlib.suppress(DeliveryRefusedError):  # there is no token to read
            claims_right = "its claims are right, but no valid key gives its signature"
            return "; ".join(faults(raw, keys, now)) or (claims_right if code == "signature_mismatch" else "")
    if code:
        for text, changed, slots, at in _changes(raw, keys, now):
            if not refusal_of(scheme, changed, slots, at):
                return text
    return ""


def nearest(asked: AskedScheme, raw: Raw, keys_of: Callable[[AskedScheme], Sequence[KeySlot]], now: float) -> str:
    """Return the smallest change of `body_hmac` or `ed25519` parameters that makes a delivery of any age verify.

    `raw` has all headers. If nothing makes it verify, return parameters with which its headers can be parsed.
    """
    if not isinstance(asked.scheme, SignedHeader):
        return ""
    given, read = _parameters(asked.scheme), ""
    for guess in _guesses(given, raw):
        changed = {name: value for name, value in guess.items() if given.get(name) != value}
        words = " and ".join(f"SCHEME_{name.upper()}={value}" for name, value in changed.items())
        code = _code_with(asked, changed, raw, keys_of, now)
        if words and code in {"", "timestamp_stale", "timestamp_future"}:
            return f"the signature is right with {words}"
        if words and code == "signature_mismatch" and not read:
            read = f"its headers have the form of {words}, but no secret and no text that was tried fits the signature"
    return "" if refusal_of(asked.scheme, raw, keys_of(asked), now) == "signature_mismatch" else read


def _code_with(
    asked: AskedScheme,
    changed: Mapping[str, str],
    raw: Raw,
    keys_of: Callable[[AskedScheme], Sequence[KeySlot]],
    now: float,
) -> str:
    try:
        scheme = configure(asked.text, {**asked.parameters, **changed}, tolerance_s=asked.tolerance_s)
        return refusal_of(scheme, raw, keys_of(asked._replace(scheme=scheme)), now)
    except ConfigError:
        return "parameters"


def _parameters(scheme: SignedHeader) -> dict[str, str]:
    found = {name: getattr(scheme, name) for name in ("format", "encoding", *_PAIRS)}
    names = {name: getattr(scheme, name).decode() for name in ("header", "timestamp_header", "prefix")}
    texts = {"template": scheme.template.text, "time_unit": scheme.template.time_unit}
    return found | names | texts | ({"digest": scheme.digest} if isinstance(scheme, BodyHmac) else {})


def _guesses(given: Mapping[str, str], raw: Raw) -> Iterator[dict[str, str]]:
    """Yield parameters suggested by the headers: the form of each header with each common signed text."""
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw.headers.items()}
    for header in [given["header"]] if given["header"] in texts else texts:
        guess = _form(texts[header])
        if not guess:
            continue
        if "digest" not in given:
            del guess["digest"]
        timed_by = next((name for name in texts if name != header and _clock(texts[name])), "")
        unit = guess.pop("unit", "") or _clock(texts.get(timed_by, ""))
        for template in dict.fromkeys((given["template"], *_TEMPLATES)):
            plain = guess["format"] == "plain" and "{timestamp}" in template
            yield guess | {
                "header": header,
                "template": template,
                "timestamp_header": timed_by if plain else "",
                "time_unit": unit if unit and "{timestamp}" in template else "s",
            }


def _form(value: str) -> dict[str, str]:
    """Return format, names, encoding and digest of a header's value; empty if it contains no signature."""
    for separator in PAIR_SEPARATORS:
        pairs = [pair.strip().partition("=") for pair in value.split(separator)]
        clock = next(((name, text) for name, _, text in pairs if _clock(text)), None)
        signed = next(((name, kind) for name, _, text in pairs if (kind := _kind(text))), None)
        if clock and signed:
            names = dict(zip(_PAIRS, (clock[0], signed[0], separator), strict=True))
            return {"format": "pairs", "prefix": "", "unit": _clock(clock[1]), **names, **signed[1]}
    found = _prefix(value)
    kind = _kind(value[found.end() :]) if found else {}
    return {"format": "plain", "prefix": found[0], **kind} if found and kind else {}


def _kind(text: str) -> dict[str, str]:
    for encoding, form in (("hex", r"[0-9a-f]+"), ("base64", r"[A-Za-z0-9+/]+=*")):
        if re.fullmatch(form, text):
            size = len(text) // 2 if encoding == "hex" else len(text.rstrip("=")) * 3 // 4
            digest = next((name for name, each in DIGEST_BYTES.items() if each == size), "")
            if digest:
                return {"encoding": encoding, "digest": digest}
    return {}


def _clock(text: str) -> str:
    """Return the unit of a timestamp; empty if the text is not one."""
    forms = {"s": r"[0-9]{10}", "ms": r"[0-9]{13}", "rfc3339": r"[0-9]{4}-[0-9-]{5}T[0-9:]{8}Z"}
    return next((unit for unit, form in forms.items() if re.fullmatch(form, text)), "")


def _changes(raw: Raw, keys: Sequence[KeySlot], now: float) -> Iterator[tuple[str, Raw, Sequence[KeySlot], float]]:
    times = list(_times(raw, now))
    anew = "compare the clocks, and sign each attempt again (--now is the time of receipt)"
    yield from ((f"the signature is right, and its time is {age}: {anew}", raw, keys, at) for age, at in times)
    mistakes = [(text, changed, keys) for text, changed in (*_bodies(raw), *_encodings(raw))]
    mistakes += [(text, raw, slots) for text, slots in _keys(keys)]
    yield from ((*mistake, now) for mistake in mistakes)
    for age, at in times:
        beside = f"; and the timestamp is {age}: `--now TIMESTAMP` checks it as of then"
        yield from ((text + beside, changed, slots, at) for text, changed, slots in mistakes)


def _times(raw: Raw, now: float) -> Iterator[tuple[str, float]]:
    for value in raw.headers.values():
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
    for name, value in raw.headers.items():
        for text, written in (
            ("hex: write it in base64", _HEX.sub(lambda found: b2a_base64(unhexlify(found[0]), newline=False), value)),
            ("base64: write it in hex", _BASE64.sub(lambda found: a2b_base64(found[0]).hex().encode(), value)),
            ("base64 alone: write `v1,` before it", _NO_VERSION.sub(rb"v1,\1", value)),
        ):
            yield f"the signature is written in {text}", raw._replace(headers={**raw.headers, name: written})


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
