"""Schemes with a signature in a header: where it is, and a template of the signed text.

A template defines the signed text: literal text with `{id}`, `{timestamp}` and `{body}`. The body occurs once, at the
end or followed only by the timestamp. `{method}`, `{url}` and `{path}` are constants: each delivery is a POST, and the
URL is a parameter, since a proxy may have changed the one that the sender called.

The signed text contains no lengths. If it could be split in two ways, a captured delivery could be sent again as a
different one with the same signature. Two rules prevent that:

- A timestamp in seconds has only digits, so the text after it must not begin with a digit; without such text, it has
  ten digits. The other forms of a timestamp have a fixed length.
- An id must not contain the text that follows it in the template. A sender may still have signed such an id, so a body
  must not begin with the rest of one. A delivery is a mismatch if its body does not begin like JSON and repeats the
  text before `{body}` near its start.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from bridge.proof.scheme import (
    ID,
    SIGNATURE_MAX_BYTES,
    Ids,
    KeySlot,
    Proof,
    ProofKey,
    Raw,
    Scheme,
    matching_slot,
    refuse,
    refuse_mismatch,
)
from bridge.proof.schemes.parameters import Parameters
from bridge.proof.timestamps import TIMESTAMP, age_words, check_age

Encoding = Literal["hex", "base64"]
Format = Literal["plain", "space_list", "pairs"]
UnsignedId = Literal["use", "ignore"]
TimeUnit = Literal["s", "ms", "rfc3339"]

ENCODINGS: tuple[Encoding, ...] = ("hex", "base64")
FORMATS: tuple[Format, ...] = ("plain", "space_list", "pairs")
# An unsigned id can be replaced on a captured delivery; without an id, the body is the identity.
UNSIGNED_ID: tuple[UnsignedId, ...] = ("use", "ignore")
PLACEHOLDERS = ("id", "timestamp", "body", "method", "url", "path")
# Separators between the pairs of a header; they do not occur in hex, base64 or a timestamp.
PAIR_SEPARATORS = (",", ";", "&", "|")
# Characters before the body in another reading: an id (200), a timestamp (20), and the template's literal texts.
_AHEAD_MAX = 220
# Without a text between timestamp and body, the timestamp has this length: Unix seconds have ten digits from 2001 to
# 2286.
TIMESTAMP_CHARS: Mapping[TimeUnit, int] = {"s": 10, "ms": 13, "rfc3339": 20}
# Ids do not begin like this, and separators do not contain it.
_BEGINS_NO_ID = frozenset({b"", *(bytes([each]) for each in b'{["\t\n\r ')})

_is_id = ID.fullmatch
_is_timestamp = {
    "s": TIMESTAMP.fullmatch,
    "ms": re.compile(rb"[0-9]{13}").fullmatch,
    "rfc3339": re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z").fullmatch,
}
_is_url = re.compile(r"https?://[!#-;=?-Z_a-z~%]{1,500}").fullmatch  # no braces, which belong to the template
_is_pair_name = re.compile(r"[A-Za-z0-9_-]{1,40}").fullmatch
_is_separator = re.compile(rb"[!#-Z\\-~]*").fullmatch  # printable, without the beginnings of a JSON document
_pieces = re.compile(r"\{([^{}]*)\}").split


class UnprovedClaim(NamedTuple):
    """The claims of a delivery before verification."""

    signatures: Sequence[bytes]  # well-formed signatures, still encoded
    id: bytes | None  # id of the delivery, if it has one
    timestamp: int | None  # Unix seconds, if the delivery has a timestamp
    signed: bytes  # the text that must have been signed
    ambiguous: bool  # the text could be split in another way, so the delivery is refused


class Template:
    """The text that is signed."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        text = parameters.text("template", "{body}")
        self.text = text
        self.time_unit: TimeUnit = parameters.choice("time_unit", tuple(TIMESTAMP_CHARS), "s")
        parts = _pieces(self._with_constants(text))
        self._literals = [part.encode() for part in parts[::2]]
        self.names = parts[1::2]
        self._check()
        self.signs_id = "id" in self.names
        self.signs_timestamp = "timestamp" in self.names
        self._after_id = self._after("id")
        self._before_body = self._literals[self.names.index("body")]
        self._ahead_max = _AHEAD_MAX + sum(map(len, self._literals))
        self._is_time_bounded = bool(self._after("timestamp"))

    def render(self, webhook_id: bytes, timestamp: bytes, body: bytes) -> bytes:
        """Return the text that is signed."""
        if len(self.names) == 1 and not self._literals[0]:
            return body
        values = {"id": webhook_id, "timestamp": timestamp, "body": body}
        pieces = [self._literals[0]]
        for name, literal in zip(self.names, self._literals[1:], strict=True):
            pieces += (values[name], literal)
        return b"".join(pieces)

    def is_ambiguous(self, webhook_id: bytes, timestamp: bytes, body: bytes) -> bool:
        """Return whether the text could also be that of another delivery."""
        if self.signs_timestamp and not self._is_time_bounded and len(timestamp) != TIMESTAMP_CHARS[self.time_unit]:
            return True
        if not self.signs_id:
            return False
        if (webhook_id + self._after_id).find(self._after_id) != len(webhook_id):
            return True
        if body[:1] in _BEGINS_NO_ID:
            return False
        # The separator may overlap with itself: `a.` and `..` join to the same text as `a` and `...`.
        return self._before_body in self._before_body[1:] + body[: self._ahead_max]

    def time_text(self, timestamp: int) -> str:
        """Format Unix seconds as the sender does."""
        if self.time_unit == "rfc3339":
            return f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%SZ}"
        return str(timestamp if self.time_unit == "s" else timestamp * 1000)

    def seconds(self, timestamp: bytes) -> int:
        """Return the Unix seconds of a timestamp; refuse one of another form."""
        if not _is_timestamp[self.time_unit](timestamp):
            refuse("timestamp_malformed")
        if self.time_unit != "rfc3339":
            return int(timestamp) // (1000 if self.time_unit == "ms" else 1)
        try:
            return int(datetime.fromisoformat(timestamp.decode()).timestamp())
        except ValueError:  # a day that the month does not have
            refuse("timestamp_malformed")

    def _with_constants(self, text: str) -> str:
        url = self._parameters.text("url", "")
        if url and not _is_url(url):
            raise self._parameters.error("url", "must be the http:// or https:// URL that the sender calls and signs")
        if not url and ("{url}" in text or "{path}" in text):
            raise self._parameters.error("url", "is required by {url} or {path} in the template")
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return text.replace("{method}", "POST").replace("{url}", url).replace("{path}", path)

    def _after(self, name: str) -> bytes:
        return self._literals[self.names.index(name) + 1] if name in self.names else b""

    def _check(self) -> None:
        error = self._parameters.error
        for literal in self._literals:
            if b"{" in literal or b"}" in literal:
                raise error("template", "has a brace that belongs to no placeholder")
        for name in self.names:
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
                raise error("template", f"has an unknown placeholder; they are {known}")
            if self.names.count(name) > 1:
                raise error("template", f"has {{{name}}} twice")
        if (self.names[-1:] != ["body"] and self.names[-2:] != ["body", "timestamp"]) or self._literals[-1]:
            raise error("template", "must end with {body}, or with {body} and then {timestamp}")
        self._check_separators()

    def _check_separators(self) -> None:
        error = self._parameters.error
        if "id" in self.names and not (self._after("id") and self._literals[self.names.index("body")]):
            raise error("template", "needs a text after {id} and one before {body}, or they could be mistaken")
        if "id" in self.names and not all(map(_is_separator, self._literals[1:-1])):
            raise error("template", 'has a space, a line break, [ or " between placeholders, of which one is {id}')
        if "timestamp" in self.names and self._after("timestamp")[:1].isdigit():
            raise error("template", "has a digit after {timestamp}, so they could be mistaken")
        if self.names[:2] == ["timestamp", "id"] and not self._after("timestamp"):
            raise error("template", "needs a text between {timestamp} and {id}, or they could be mistaken")


class SignedHeader(Scheme):
    """A scheme with its signature in a header."""

    def __init__(self, parameters: Parameters, *, title: str, bytes_of_signature: int) -> None:
        """Read the parameters; `title` begins the description.

        Raises:
            ParameterError: A parameter is missing, unknown or contradicts another.
        """
        self._title = title
        self._tolerance_s = parameters.tolerance_s
        self.header = parameters.header("header")
        self.encoding: Encoding = parameters.choice("encoding", ENCODINGS, "hex")
        self.format: Format = parameters.choice("format", FORMATS, "plain")
        self.prefix = parameters.text("prefix", "").encode()
        self._read_pair_parameters(parameters)
        self.template = Template(parameters)
        self.timestamp_header = parameters.header("timestamp_header", "")
        self.id_header = parameters.header("id_header", "")
        self.dated = self.template.signs_timestamp
        self.signs_id = self.template.signs_id
        self._check(parameters)
        has_unsigned = bool(self.id_header) and not self.signs_id
        unsigned: UnsignedId | None = parameters.optional_choice("unsigned_id", UNSIGNED_ID)
        if unsigned == "ignore" and not has_unsigned:
            raise parameters.error("unsigned_id", "needs an id header, and a template without {id}")
        uses_unsigned = has_unsigned and unsigned != "ignore"
        self.ids: Ids = "signed" if self.signs_id else "unsigned" if uses_unsigned else "none"
        form = rb"[0-9a-f]{%d}" % (2 * bytes_of_signature)
        if self.encoding == "base64":
            padding = -bytes_of_signature % 3
            form = rb"[A-Za-z0-9+/]{%d}={%d}" % (-(-bytes_of_signature * 8 // 6), padding)
        self._has_form = re.compile(form).fullmatch
        # An ignored id is not used and only kept with a parked delivery, so it may be repeated.
        self.joined = frozenset({self.id_header} if unsigned == "ignore" else ())
        self.headers = frozenset({self.header, self.timestamp_header, self.id_header} - {b""}) - self.joined
        self.safe = (self.headers | self.joined) - {self.header}

    @abstractmethod
    def verifier(self, claim: UnprovedClaim) -> Callable[[ProofKey], bool]:
        """Return a predicate whether a key made one of the signatures of a claim."""

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Try each key on each signature."""
        claim = self._read(raw)
        matched = matching_slot(keys, now, self.verifier(claim))
        if matched is None or claim.ambiguous:
            refuse_mismatch(keys, now)
        if claim.timestamp is not None:
            check_age(claim.timestamp, self._tolerance_s, now)
        webhook_id = None if claim.id is None else claim.id.decode("ascii")
        return Proof(webhook_id, claim.timestamp, matched.name, self.signs_id)

    def describe(self) -> str:
        """Describe the scheme, its header, the signed text, and an unsigned id."""
        prefix = f"{self.prefix.decode()}…" if self.prefix else self.format
        unsigned = f", unsigned id {self.id_header.decode()}" if self.ids == "unsigned" else ""
        age = age_words(self._tolerance_s) if self.dated else "no time"
        signs = f"{self.header.decode()} ({prefix}, {self.encoding}) over {self.template.text}"
        return f"{self._title} {signs}{unsigned}, {age}"

    def _read(self, raw: Raw) -> UnprovedClaim:
        headers = raw.headers
        value = headers.get(self.header)
        if value is None:
            refuse("signature_missing")
        if len(value) > SIGNATURE_MAX_BYTES:
            refuse("signature_malformed")
        timestamp = headers.get(self.timestamp_header) if self.timestamp_header else None
        webhook_id = headers.get(self.id_header) if self.ids != "none" else None
        if (self.timestamp_header and timestamp is None) or (self.signs_id and webhook_id is None):
            refuse("signature_missing")
        if self.format == "pairs":
            candidates, timestamp = self._pairs(value)
        else:
            candidates = self._candidates(value)
        if webhook_id is not None and not _is_id(webhook_id):
            refuse("id_malformed")
        seconds = self.template.seconds(timestamp or b"") if self.dated else None
        signatures = [each for each in candidates if self._has_form(each)]
        if not signatures:
            refuse("signature_malformed")
        signed = self.template.render(webhook_id or b"", timestamp or b"", raw.body)
        ambiguous = self.template.is_ambiguous(webhook_id or b"", timestamp or b"", raw.body)
        return UnprovedClaim(signatures, webhook_id, seconds, signed, ambiguous)

    def _candidates(self, value: bytes) -> list[bytes]:
        prefix = self.prefix
        elements = value.split(b" ") if self.format == "space_list" else [value]
        return [element[len(prefix) :] for element in elements if element.startswith(prefix)]

    def _pairs(self, value: bytes) -> tuple[list[bytes], bytes | None]:
        """Split `t=…,v1=…,v1=…` into signatures and time; None unless there is exactly one time."""
        split = [pair.strip(b" ").partition(b"=") for pair in value.split(self.pair_separator.encode())]
        times = [text for name, _, text in split if name == self.time_name.encode()]
        signatures = [text for name, _, text in split if name == self.signature_name.encode()]
        return signatures, times[0] if len(times) == 1 else None

    def _read_pair_parameters(self, parameters: Parameters) -> None:
        for name in ("signature_name", "time_name", "pair_separator"):
            if self.format != "pairs" and parameters.text(name, ""):
                raise parameters.error(name, "needs the format pairs")
        self.signature_name = parameters.text("signature_name", "v1")
        self.time_name = parameters.text("time_name", "t")
        self.pair_separator = parameters.choice("pair_separator", PAIR_SEPARATORS, ",")
        for name, value in (("signature_name", self.signature_name), ("time_name", self.time_name)):
            if not _is_pair_name(value) or self.signature_name == self.time_name:
                raise parameters.error(name, "must be a name before `=`; signature and time need different ones")

    def _check(self, parameters: Parameters) -> None:
        template = self.template
        if self.format == "pairs":
            if self.prefix or self.timestamp_header:
                raise parameters.error("format", "pairs has neither a prefix nor a timestamp header: it is t=…,v1=…")
            if not template.signs_timestamp:
                problem = f"needs {{timestamp}}: with the format pairs it comes from {self.time_name}"
                raise parameters.error("template", problem)
        elif bool(self.timestamp_header) != template.signs_timestamp:
            problem = "and {timestamp} in the template belong together: only a signed time shows how old a delivery is"
            raise parameters.error("timestamp_header", problem)
        if template.signs_id and not self.id_header:
            raise parameters.error("id_header", "is required by {id} in the template")
        names = [self.header, self.timestamp_header, self.id_header]
        if len(set(filter(None, names))) < len(list(filter(None, names))):
            raise parameters.error("header", "signature, timestamp and id must be in different headers")
