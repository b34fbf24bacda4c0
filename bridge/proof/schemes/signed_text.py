"""Where a signature stands in a delivery, what it covers, and the texts in which these are configured.

A template defines the signed text: literal text with `{id}`, `{timestamp}` and `{body}`, the body once and last. The
signed text has no lengths in it. If it could be split in two ways, a captured delivery could be sent again as another
one under the same signature. Two rules prevent that:

- A timestamp is digits only, so the text that follows it may not begin with a digit; where no text follows, it has ten
  digits.
- An id may not contain the text that follows it in the template. A sender may have signed such an id all the same, so a
  body may not begin with the rest of one. A delivery is a mismatch if its body does not begin like JSON and has the
  text before `{body}` again near its start.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from bridge.proof.scheme import (
    ID,
    SIGNATURE_MAX_BYTES,
    TIMESTAMP,
    Ids,
    KeySlot,
    Proof,
    ProofKey,
    Raw,
    Scheme,
    age_words,
    check_age,
    matching_slot,
    refuse,
    refuse_mismatch,
)
from bridge.proof.schemes.parameters import Parameters

Encoding = Literal["hex", "base64"]
Format = Literal["plain", "space_list", "pairs"]
UnsignedId = Literal["use", "ignore"]

ENCODINGS: tuple[Encoding, ...] = ("hex", "base64")
FORMATS: tuple[Format, ...] = ("plain", "space_list", "pairs")
# An id that no signature covers can be another one on a captured delivery; without it the body is the identity.
UNSIGNED_ID: tuple[UnsignedId, ...] = ("use", "ignore")
PLACEHOLDERS = ("id", "timestamp", "body")
# What stands before the body of another reading: an id (200), a timestamp (12), and the literal texts of the template.
_AHEAD_MAX = 212
# Where nothing stands between the two, the body begins behind a timestamp of this length: unix seconds have ten digits
# from 2001 to 2286.
TIMESTAMP_CHARS = 10
# No id begins like this, and no separator has it.
_BEGINS_NO_ID = frozenset({b"", *(bytes([each]) for each in b'{["\t\n\r ')})

_is_id = ID.fullmatch
_is_timestamp = TIMESTAMP.fullmatch
_is_separator = re.compile(rb"[!#-Z\\-~]*").fullmatch  # printable, without what a JSON document begins with
_pieces = re.compile(r"\{([^{}]*)\}").split


class UnprovedClaim(NamedTuple):
    """What a delivery claims, before any proof."""

    signatures: Sequence[bytes]  # well-formed ones, still encoded
    id: bytes | None  # id of the delivery, if it has one
    timestamp: bytes | None  # its digits, if the delivery has a timestamp
    signed: bytes  # the text that must have been signed
    ambiguous: bool  # the text could be read in another way; nothing proves it


class Template:
    """The text that is signed."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        text = parameters.text("template", "{body}")
        self.text = text
        parts = _pieces(text)
        self._literals = [part.encode() for part in parts[::2]]
        self.names = parts[1::2]
        self._check()
        self.signs_id = "id" in self.names
        self.signs_timestamp = "timestamp" in self.names
        self._after_id = self._after("id")
        self._before_body = self._literals[-2]
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
        """Return whether the text could be read as that of another delivery."""
        if self.signs_timestamp and not self._is_time_bounded and len(timestamp) != TIMESTAMP_CHARS:
            return True
        if not self.signs_id:
            return False
        if (webhook_id + self._after_id).find(self._after_id) != len(webhook_id):
            return True
        if body[:1] in _BEGINS_NO_ID:
            return False
        # The separator may overlap with itself: `a.` and `..` end as `a` and `...` do.
        return self._before_body in self._before_body[1:] + body[: self._ahead_max]

    def _after(self, name: str) -> bytes:
        return self._literals[self.names.index(name) + 1] if name in self.names else b""

    def _check(self) -> None:
        error = self._parameters.error
        for literal in self._literals:
            if b"{" in literal or b"}" in literal:
                raise error("template", "has a brace that belongs to no placeholder")
        for name in self.names:
            if name not in PLACEHOLDERS:
                raise error("template", "has an unknown placeholder; they are {id}, {timestamp} and {body}")
            if self.names.count(name) > 1:
                raise error("template", f"has {{{name}}} twice")
        if self.names[-1:] != ["body"] or self._literals[-1]:
            raise error("template", "must end with {body}")
        self._check_separators()

    def _check_separators(self) -> None:
        error = self._parameters.error
        if "id" in self.names and not (self._after("id") and self._literals[-2]):
            raise error("template", "needs a text after {id} and one before {body}, or they could be mistaken")
        if "id" in self.names and not all(map(_is_separator, self._literals[1:-1])):
            raise error("template", 'has a space, a line break, [ or " between placeholders, of which one is {id}')
        if "timestamp" in self.names and self._after("timestamp")[:1].isdigit():
            raise error("template", "has a digit after {timestamp}, so they could be mistaken")
        follows = self.names[self.names.index("timestamp") + 1] if "timestamp" in self.names else "body"
        if follows == "id" and not self._after("timestamp"):
            raise error("template", "needs a text between {timestamp} and {id}, or they could be mistaken")


class SignedHeader(Scheme):
    """A scheme whose signature stands in a header of its own."""

    def __init__(self, parameters: Parameters, *, title: str, bytes_of_signature: int) -> None:
        """Read the parameters; `title` stands in front of what is described.

        Raises:
            ParameterError: A parameter is missing, unknown or contradicts another.
        """
        self._title = title
        self._tolerance_s = parameters.tolerance_s
        self.header = parameters.header("header")
        self.encoding: Encoding = parameters.choice("encoding", ENCODINGS, "hex")
        self.format: Format = parameters.choice("format", FORMATS, "plain")
        self.prefix = parameters.text("prefix", "").encode()
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
        # An ignored id proves nothing and is only kept with a parked delivery, so it may be there twice.
        self.joined = frozenset({self.id_header} if unsigned == "ignore" else ())
        self.headers = frozenset({self.header, self.timestamp_header, self.id_header} - {b""}) - self.joined
        self.safe = (self.headers | self.joined) - {self.header}

    @abstractmethod
    def prover(self, claim: UnprovedClaim) -> Callable[[ProofKey], bool]:
        """Return a predicate: whether a key made one of the signatures of a claim."""

    def prove(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Try each key on each signature."""
        claim = self._read(raw)
        matched = matching_slot(keys, now, self.prover(claim))
        if matched is None or claim.ambiguous:
            refuse_mismatch(keys, now)
        timestamp = None if claim.timestamp is None else int(claim.timestamp)
        if timestamp is not None:
            check_age(timestamp, self._tolerance_s, now)
        webhook_id = None if claim.id is None else claim.id.decode("ascii")
        return Proof(webhook_id, timestamp, matched.name, self.signs_id)

    def describe(self) -> str:
        """Name the scheme, the header, what is signed, and an id that is not."""
        prefix = f"{self.prefix.decode()}…" if self.prefix else self.format
        unsigned = f", unsigned id {self.id_header.decode()}" if self.ids == "unsigned" else ""
        age = age_words(self._tolerance_s) if self.dated else "no time"
        signs = f"{self.header.decode()} ({prefix}, {self.encoding}) over {self.template.text}"
        return f"{self._title} {signs}{unsigned}, {age}"

    def _read(self, raw: Raw) -> UnprovedClaim:
        heads = raw.heads
        value = heads.get(self.header)
        if value is None:
            refuse("signature_missing")
        if len(value) > SIGNATURE_MAX_BYTES:
            refuse("signature_malformed")
        timestamp = heads.get(self.timestamp_header) if self.timestamp_header else None
        webhook_id = heads.get(self.id_header) if self.ids != "none" else None
        if (self.timestamp_header and timestamp is None) or (self.signs_id and webhook_id is None):
            refuse("signature_missing")
        if self.format == "pairs":
            candidates, timestamp = pairs(value)
        else:
            candidates = self._candidates(value)
        if webhook_id is not None and not _is_id(webhook_id):
            refuse("id_malformed")
        if self.dated and (timestamp is None or not _is_timestamp(timestamp)):
            refuse("timestamp_malformed")
        signatures = [each for each in candidates if self._has_form(each)]
        if not signatures:
            refuse("signature_malformed")
        signed = self.template.render(webhook_id or b"", timestamp or b"", raw.body)
        ambiguous = self.template.is_ambiguous(webhook_id or b"", timestamp or b"", raw.body)
        return UnprovedClaim(signatures, webhook_id, timestamp if self.dated else None, signed, ambiguous)

    def _candidates(self, value: bytes) -> list[bytes]:
        prefix = self.prefix
        elements = value.split(b" ") if self.format == "space_list" else [value]
        return [element[len(prefix) :] for element in elements if element.startswith(prefix)]

    def _check(self, parameters: Parameters) -> None:
        template = self.template
        if self.format == "pairs":
            if self.prefix or self.timestamp_header:
                raise parameters.error("format", "pairs has neither a prefix nor a timestamp header: it is t=…,v1=…")
            if not template.signs_timestamp:
                raise parameters.error("template", "needs {timestamp}: with the format pairs it comes from t")
        elif bool(self.timestamp_header) != template.signs_timestamp:
            problem = "and {timestamp} in the template belong together: only a signed time says how old a delivery is"
            raise parameters.error("timestamp_header", problem)
        if template.signs_id and not self.id_header:
            raise parameters.error("id_header", "is required by {id} in the template")
        names = [self.header, self.timestamp_header, self.id_header]
        if len(set(filter(None, names))) < len(list(filter(None, names))):
            raise parameters.error("header", "names one header for two things")


def pairs(value: bytes) -> tuple[list[bytes], bytes | None]:
    """Split `t=…,v1=…,v1=…` into signatures and time; None without a time, or with two."""
    split = [pair.strip(b" ").partition(b"=") for pair in value.split(b",")]
    times = [text for name, _, text in split if name == b"t"]
    return [text for name, _, text in split if name == b"v1"], times[0] if len(times) == 1 else None
