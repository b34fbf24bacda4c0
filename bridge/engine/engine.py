"""The engine: orjson, and one generated function for each event type that reads and writes in one go.

The function is straight code over the fields of the plan, in their order: look the member up, check it, put its bytes
into a local variable. At the end all of them are joined, with the bytes of constant fields between. Nothing is called
for a field of a common kind, and nothing is made for an absent one.

orjson is not as strict as `json_body.py`, so its document counts only with a proof:

- It takes the last of two members with one name, and reads `-0` as 0. If the document written back is the body, byte
  for byte, there was neither: it writes each name once, and 0 as `0`. Most senders write bodies in this form.
- Otherwise every object has been seen to hold only known members, whose number is known. In the text each member has
  the quote that ends its name and a colon; where no space stands before a colon the two are neighbours. So if `":`
  occurs as often as there are members, no other one is hidden. (A text with `":` in it only adds to the count.) `-0` is
  searched for.
- Integers of more than 64 bits, fractions and exponents are not read as an `int` in the range of a field. No field lies
  as deep as the contract allows, and what lies below an unknown member is not looked at: it defers. Whatever else the
  contract refuses, orjson refuses too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache, partial
from typing import Any

import orjson

from bridge.avro.encoder import (
    END,
    EPOCH_DAY,
    SHORT,
    VALUE,
    VALUE_VARINTS,
    VARINTS,
    microseconds,
    number,
    shortest,
    varint,
)
from bridge.contract.envelope import VERSION
from bridge.engine.plan import EventPlan, Field, KeyPath, Kind, Plan
from bridge.event import AHEAD_MAX, RECEIPTS_MAX, EncodedEvent
from bridge.ingress.profiles.keys import KEY_PATTERN

# Takes the document, `data`, and encoded: webhook id, source, environment, instants of the event and of its receipt.
# Returns the number of members, the key, the prescription id, the record.
_Encode = Callable[[dict[str, Any], Any, bytes, bytes, bytes, bytes, bytes], tuple[int, str, str | None, bytes]]

_AHEAD_MAX_US = AHEAD_MAX // timedelta(microseconds=1)
_TRUE, _FALSE = b"\x01", b"\x00"
_PRESCRIPTION_ID = ("data", "prescription_id")
# Instants with eight bytes: of the years 1979 to 3111.
_EIGHT_BYTES_US = range(1 << 48, 1 << 55)
# Two bytes of a varint by their fourteen bits: with more to come, and as the last ones.
_PAIRS = tuple(bytes((bits & 0x7F | 0x80, bits >> 7 | 0x80)) for bits in range(1 << 14))
_LAST_PAIRS = tuple(bytes((bits & 0x7F | 0x80, bits >> 7)) for bits in range(1 << 14))
# Days and decimals whose bytes are remembered, of each kind; a few megabytes in all.
_CACHED_MAX = 8192

_is_instant = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_decimal_parts = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,18}))?").fullmatch
_has_minus_zero = re.compile(rb"-0(?![0-9])").search
_SPACES = (b" ", b"\t", b"\n", b"\r")  # RFC 8259, section 2


class _Defer(Exception):  # noqa: N818 - no error: the reference decides
    """The delivery is not plainly conforming."""


class Engine:
    """Encodes the plainly conforming deliveries of one source."""

    def __init__(self, compiled: Compiled, *, source: str, environment: str) -> None:
        self._encoders = compiled
        self._source = source
        self._source_bytes = _text(source)
        self._environment = environment
        self._environment_bytes = compiled.plan.environments[environment]

    def __call__(self, body: bytes, webhook_id: str, received_at: datetime, /) -> EncodedEvent | None:
        """Return the one event of a body, or None if the delivery is not plainly conforming."""
        try:
            document = orjson.loads(body)
            if document.__class__ is not dict:
                return None
            member = document.get
            event_type: Any = member("type")
            encode = self._encoders[event_type] if event_type.__class__ is str else None
            given_id, timestamp = member("id"), member("timestamp")
            if (
                encode is None
                or timestamp.__class__ is not str
                or member("version") != VERSION
                or member("environment") != self._environment
                or (given_id is not None and given_id != webhook_id)
            ):
                return None
            occurred_at = _instant(timestamp)
            occurred_us = microseconds(occurred_at)
            received_us, received = _receipt(received_at)
            if occurred_us - received_us > _AHEAD_MAX_US:
                return None
            members, key, prescription_id, encoded = encode(
                document,
                member("data"),
                _text(webhook_id),
                self._source_bytes,
                self._environment_bytes,
                _micros(occurred_us),
                received,
            )
            if orjson.dumps(document) != body and not _proves(body, members):
                return None
        except (_Defer, ValueError, OverflowError):
            return None
        return EncodedEvent(
            webhook_id, event_type, self._source, key, prescription_id, occurred_at, received_at, encoded
        )


def _proves(body: bytes, members: int) -> bool:
    """Return whether a body that orjson would write differently hides no member and no -0."""
    return (
        body.count(b'":') == members
        # A single byte is found in a tenth of the time of two; most bodies have none but spaces.
        and not any(space in body and space + b":" in body for space in _SPACES)
        and _has_minus_zero(body) is None
    )


class Compiled(dict[str, _Encode]):
    """The functions of a plan by type of event, for all sources; each is made for the first event of its type.

    To make one takes 3 ms, and all of them were a tenth of a start.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def __missing__(self, event_type: str) -> _Encode | None:
        """Make the function of a type that is known."""
        event = self.plan.events.get(event_type)
        if event is None:
            return None
        encode = self[event_type] = _Function(event).compile()
        return encode


def _text(text: str) -> bytes:
    raw = text.encode()
    return number(len(raw)) + raw


def _instant(text: str) -> datetime:
    if _is_instant(text) is None:
        raise _Defer
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


@lru_cache(RECEIPTS_MAX)
def _receipt(received_at: datetime) -> tuple[int, bytes]:
    """Return the microseconds of a receipt, and how they are encoded."""
    received_us = microseconds(received_at)
    return received_us, _micros(received_us)


def _micros(us: int) -> bytes:
    if us not in _EIGHT_BYTES_US:
        return varint(us)
    n = us << 1
    return _PAIRS[n & 0x3FFF] + _PAIRS[n >> 14 & 0x3FFF] + _PAIRS[n >> 28 & 0x3FFF] + _LAST_PAIRS[n >> 42 & 0x3FFF]


def _encoded_instant(text: str) -> bytes:
    return _micros(microseconds(_instant(text)))


def _encoded_day(text: str) -> bytes:
    day = date.fromisoformat(text)
    if day.isoformat() != text:  # ISO 8601 knows other spellings
        raise _Defer
    return varint(day.toordinal() - EPOCH_DAY)


def _encoded_decimal(text: str, *, precision: int, scale: int) -> bytes:
    parts = _decimal_parts(text)
    if parts is None:
        raise _Defer
    sign, whole, fraction = parts.groups("")
    if len(fraction) > scale:
        raise _Defer
    magnitude = int(whole + fraction.ljust(scale, "0"))
    if magnitude >= 10**precision:
        raise _Defer
    return shortest(-magnitude if sign else magnitude)


@cache
def _text_encoder(name: str, precision: int, scale: int) -> Callable[[str], bytes]:
    """Return what encodes a text that is no text in Avro; the same days and quantities come again and again."""
    if name == "instant":
        return _encoded_instant
    encode = partial(_encoded_decimal, precision=precision, scale=scale) if name == "decimal" else _encoded_day
    return lru_cache(_CACHED_MAX)(encode)


def _encoded_map(item: Any, lead: bytes) -> tuple[int, bytes]:
    """Return the number of members, too."""
    if item.__class__ is not dict:
        raise _Defer
    parts = [lead]
    if item:
        parts.append(number(len(item)))
    for name, text in item.items():
        if text.__class__ is not str:
            raise _Defer
        parts += (_text(name), _text(text))
    parts.append(END)
    return len(item), b"".join(parts)


class _Function:
    """Writes the source of one function."""

    def __init__(self, event: EventPlan) -> None:
        self._event = event
        self._lines: list[str] = []
        self._names: dict[str, Any] = {
            "Defer": _Defer,
            "numbers": VARINTS,
            "nullable_numbers": VALUE_VARINTS,
            "number": number,
            "encoded_map": _encoded_map,
        }
        self._made = 0

    def compile(self) -> _Encode:
        """Return the function."""
        fields = self._event.fields
        envelope = {field.member for field in fields if field.origin == "envelope"}
        apart = {"id", "type", "version", "timestamp", "environment", "data"}
        self._line(0, "def encode(document, data, event_id, source, environment, occurred_at, received_at):")
        self._known(1, "document", envelope | apart)
        self._line(1, "if data.__class__ is not dict: raise Defer")
        self._known(1, "data", {field.member for field in fields if field.origin == "member"})
        self._line(1, "members = len(document) + len(data)")
        self._line(1, "of_document = document.get; of_data = data.get")
        self._key(1, self._event.key)
        record = self._joined(1, b"", fields, {"envelope": "of_document", "member": "of_data"})
        self._line(1, f"return members, key, prescription_id, {record}")
        exec("\n".join(self._lines), self._names)  # noqa: S102 - of names that schemas and models allow, all ours
        encode: _Encode = self._names["encode"]
        return encode

    def _line(self, depth: int, text: str) -> None:
        self._lines.append("    " * depth + text)

    def _constant(self, value: object) -> str:
        self._made += 1
        name = f"c{self._made}"
        self._names[name] = value
        return name

    def _variable(self) -> str:
        self._made += 1
        return f"v{self._made}"

    def _known(self, depth: int, item: str, names: Iterable[str]) -> None:
        self._line(depth, f"if not {self._constant(frozenset(names))}.issuperset({item}): raise Defer")

    def _key(self, depth: int, paths: tuple[KeyPath, ...]) -> None:
        """Set `key`, and `prescription_id` where the key is one."""
        path, *others = paths
        item = "document"
        for name in path.path[:-1]:
            self._line(depth, f"inner = {item}.get({name!r})")
            self._line(depth, "if inner.__class__ is not dict: raise Defer")
            item = "inner"
        self._line(depth, f"key = {item}.get({path.path[-1]!r})")
        if others:
            self._line(depth, "if key is None:")
            self._key(depth + 1, tuple(others))
            self._line(depth, "else:")
            depth += 1
        conforms = self._constant(_key_pattern(path))
        self._line(depth, "if key.__class__ is not str or not key: raise Defer")
        if path.prefix:
            self._line(depth, f"key = {path.prefix!r} + key")
        self._line(depth, f"if {conforms}(key) is None: raise Defer")
        self._line(depth, f"prescription_id = {'key' if path.path == _PRESCRIPTION_ID else None}")

    def _joined(self, depth: int, lead: bytes, fields: tuple[Field, ...], getters: Mapping[str, str]) -> str:
        """Write what reads the fields; return the expression for their bytes, with `lead` in front."""
        parts: list[bytes | str] = [lead]
        for field in fields:
            if field.origin == "constant":
                parts.append(field.absent or b"")
            elif field.origin in getters:
                parts.append(self._field(depth, field, getters[field.origin]))
            else:
                parts.append(field.origin)
        return f"b''.join(({', '.join(_merged(parts))},))"

    def _field(self, depth: int, field: Field, get: str) -> str:
        """Write what reads a member, and return the variable with its bytes."""
        item, target = self._variable(), self._variable()
        self._line(depth, f"{item} = {get}({field.member!r})")
        self._line(depth, f"if {item} is None:")
        self._line(depth + 1, "raise Defer" if field.absent is None else f"{target} = {field.absent!r}")
        self._line(depth, "else:")
        self._value(depth + 1, target, field.kind, item, VALUE if field.nullable else b"")
        return target

    def _value(self, depth: int, target: str, kind: Kind | None, item: str, lead: bytes) -> None:
        """Write what reads `item`, which is not None, and puts its bytes into `target`, behind `lead`."""
        match kind:
            case Kind("array", items=items):
                self._array(depth, target, items, item, lead)
            case Kind("record", fields=fields):
                self._record(depth, target, fields, item, lead)
            case Kind("map"):
                self._line(depth, f"size, {target} = encoded_map({item}, {lead!r}); members += size")
            case Kind():
                for line in self._scalar(target, kind, item, lead):
                    self._line(depth, line)

    def _scalar(self, target: str, kind: Kind, item: str, lead: bytes) -> Iterator[str]:
        front = f"{lead!r} + " if lead else ""
        match kind.name:
            case "text":
                numbers = "nullable_numbers" if lead else "numbers"
                yield f"if {item}.__class__ is not str: raise Defer"
                yield f"raw = {item}.encode(); size = len(raw)"
                yield f"{target} = ({numbers}[size] if size < {SHORT} else {front}number(size)) + raw"
            case "word":
                words = {word: lead + code for word, code in kind.words.items()}
                yield f"{target} = {self._constant(words)}.get({item}) if {item}.__class__ is str else None"
                yield f"if {target} is None: raise Defer"
            case "boolean":
                yield f"if {item}.__class__ is not bool: raise Defer"
                yield f"{target} = {lead + _TRUE!r} if {item} else {lead + _FALSE!r}"
            case "integer":
                fits = f"{kind.least} <= {item} <= {kind.greatest}"
                yield f"if {item}.__class__ is not int or not {fits}: raise Defer"
                yield f"{target} = {front}number({item})"
            case _:
                yield f"if {item}.__class__ is not str: raise Defer"
                encode = self._constant(_text_encoder(kind.name, kind.precision, kind.scale))
                yield f"{target} = {front}{encode}({item})"

    def _array(self, depth: int, target: str, items: Kind | None, item: str, lead: bytes) -> None:
        parts, each, encoded = self._variable(), self._variable(), self._variable()
        self._line(depth, f"if {item}.__class__ is not list: raise Defer")
        self._line(depth, f"{parts} = [{lead!r}]")
        self._line(depth, f"if {item}: {parts}.append(number(len({item})))")
        self._line(depth, f"for {each} in {item}:")
        self._value(depth + 1, encoded, items, each, b"")
        self._line(depth + 1, f"{parts}.append({encoded})")
        self._line(depth, f"{parts}.append({END!r}); {target} = b''.join({parts})")

    def _record(self, depth: int, target: str, fields: tuple[Field, ...], item: str, lead: bytes) -> None:
        get = self._variable()
        self._line(depth, f"if {item}.__class__ is not dict: raise Defer")
        self._known(depth, item, (field.member for field in fields if field.origin == "member"))
        self._line(depth, f"members += len({item}); {get} = {item}.get")
        joined = self._joined(depth, lead, fields, {"member": get})
        self._line(depth, f"{target} = {joined}")


def _key_pattern(path: KeyPath) -> Callable[[str], re.Match[str] | None]:
    reserved = "|".join(re.escape(path.prefix + each) for each in path.reserved)
    return re.compile(f"(?!{reserved}){KEY_PATTERN}" if reserved else KEY_PATTERN).fullmatch


def _merged(parts: Iterable[bytes | str]) -> Iterator[str]:
    """Yield expressions, those of neighbouring constants as one."""
    constant = b""
    for part in parts:
        if isinstance(part, bytes):
            constant += part
            continue
        if constant:
            yield repr(constant)
        constant = b""
        yield part
    if constant:
        yield repr(constant)
