"""The fast path: encode a body directly to its Avro record, by a generated function for each event type.

It skips the intermediate document, notes and value of the reference (`json_body.py`, `drx_standard.py`,
`avro/encoder.py`). It handles only a *plainly conforming* delivery and *defers* any other: it returns None, and the
reference decides from the start. So the reference stays the only definition of the contract; tests compare the two.

**Plainly conforming** means all of the following; the fast path may defer more, never less.

- The body is one JSON object without a byte order mark, a lone surrogate, a name twice in an object, or a number `-0`.
- `type` is a type of the contract, `version` the contract's, `environment` the source's; `id` is absent, null or that
  of the delivery; `timestamp` is an instant, not later than `AHEAD_MAX` after the receipt.
- Every other member, in the body or in `data`, belongs to a field of the type. Its value has the usual form: a string
  for a decimal, a day or an instant, a known symbol for an enum. A null is the same as an absent member.
- The record key is the first value found along the key's paths, and conforms.

A function is straight-line code over the fields of its type's model and schema, in their order: look the member up,
check it, put its bytes into a local variable. At the end these are joined with the bytes of constant fields. Fields of
common kinds need no function call, and absent ones no object.

orjson is less strict than `json_body.py`, so further checks show that both would read the same document:

- It keeps the last of two members with one name, and reads `-0` as 0. If serialising the document gives the body, byte
  for byte, there was neither: it writes each name once, and 0 as `0`. Most senders' bodies have this form.
- Otherwise the members are counted: every object holds only known ones. In the body, each name ends with a quote,
  directly followed by a colon if no space precedes colons. So if `":` occurs as often as there are members, no repeated
  one is hidden. (A string that contains `":` only adds to the count.) The body is searched for `-0`.
- Integers of more than 64 bits, fractions and exponents are not read as an `int` in the range of a field. No field is
  nested as deep as the contract allows, and an unknown member defers anyway. Everything else that the contract refuses,
  orjson refuses too.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

import orjson
from pydantic import AwareDatetime

from bridge.avro.encoder import (
    END,
    NULL,
    SHORT,
    VALUE,
    VALUE_VARINTS,
    VARINTS,
    EncodeError,
    compile_encoder,
    encode_text,
    microseconds,
    number,
    varint,
)
from bridge.contract.envelope import VERSION, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.contract.fields import UNKNOWN, Bits, Characters, ContractRecord, Digits, kept_words, plain
from bridge.event import AHEAD_MAX, RECEIPTS_MAX, Event
from bridge.mapping import drx_standard, record_keys
from bridge.mapping.profile import Profile
from bridge.mapping.readers import blank_record
from bridge.registry.schemas import expand

# Arguments: the document, `data`, and encoded: webhook id, source, environment, instants of event and receipt. Returns:
# number of members, key, prescription id, record.
_Encode = Callable[[dict[str, Any], Any, bytes, bytes, bytes, bytes, bytes], tuple[int, str, str | None, bytes]]

_AHEAD_MAX_US = AHEAD_MAX // timedelta(microseconds=1)
_TRUE, _FALSE = b"\x01", b"\x00"
_Path = tuple[str, ...]  # member names from the root of the body
_PRESCRIPTION_ID: _Path = ("data", "prescription_id")
_REQUEST_ID: _Path = ("data", "request_id")
# The key rules of the reference, as paths to take a key from.
_KEY_PATHS: Mapping[record_keys.KeyRule, tuple[_Path, ...]] = MappingProxyType(
    {
        record_keys.prescription_key: (_PRESCRIPTION_ID,),
        record_keys.request_key: (_PRESCRIPTION_ID, _REQUEST_ID),
        record_keys.prescriber_key: (("data", "prescriber", "id"),),
        record_keys.account_key: (("account_id",),),
    }
)
# Members of the body that the caller reads or that are not a field; and fields that others fill.
_APART = ("id", "type", "version", "timestamp", "environment", "data")
_ENVELOPE: Mapping[str, str] = MappingProxyType(
    {"account_id": "account_id", "sequence": "sequence", "correlation_id": "correlation_id", "origin_source": "source"}
)
# Fields passed to the function encoded.
_GIVEN = ("event_id", "source", "environment", "occurred_at", "received_at")
# Cached encodings of days and of decimals, each; a few megabytes in all.
_CACHED_MAX = 8192

_is_instant = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch
_is_decimal = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?").fullmatch
_has_minus_zero = re.compile(rb"-0(?![0-9])").search
_SPACES = (b" ", b"\t", b"\n", b"\r")  # RFC 8259, section 2


class _Defer(Exception):  # noqa: N818 - not an error: the reference decides
    """The delivery is not plainly conforming."""


class FastPath:
    """Encodes the plainly conforming deliveries of one source."""

    def __init__(self, encoders: "_Encoders", *, source: str, environment: str) -> None:
        self.encoders = encoders
        self._source = source
        self._source_bytes = encode_text(source)
        self._environment = environment
        self._environment_bytes = encoders.environments[environment]

    def __call__(self, body: bytes, webhook_id: str, received_at: datetime, /) -> Event | None:
        """Return the one event of a body, or None if the delivery is not plainly conforming."""
        try:
            document = orjson.loads(body)
            if document.__class__ is not dict:
                return None
            member = document.get
            event_type: Any = member("type")
            encode = self.encoders[event_type] if event_type.__class__ is str else None
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
                encode_text(webhook_id),
                self._source_bytes,
                self._environment_bytes,
                varint(occurred_us),
                received,
            )
            if orjson.dumps(document) != body and not _proves(body, members):
                return None
        except (_Defer, EncodeError, ValueError, OverflowError):
            return None
        value = {"prescription_id": prescription_id}
        return Event(webhook_id, event_type, self._source, key, occurred_at, received_at, value, encoded=encoded)


def _proves(body: bytes, members: int) -> bool:
    """Return whether a body, though orjson would write it differently, has no repeated member and no `-0`."""
    return (
        body.count(b'":') == members
        # Finding one byte takes a tenth of the time of finding two; most bodies have only spaces.
        and not any(space in body and space + b":" in body for space in _SPACES)
        and _has_minus_zero(body) is None
    )


class FastPaths:
    """The fast paths of all sources; sources with the same profile share functions."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]], records: Mapping[str, str]) -> None:
        """`schemas` are by record name; `records` gives the record name of each event type."""
        self._expanded = {event_type: expand(schemas[record]) for event_type, record in records.items()}
        self._encoders: dict[drx_standard.NativeProfile, _Encoders] = {}

    def of(self, profile: Profile, *, source: str, environment: str) -> FastPath | None:
        """Return the fast path of a source, or None if its profile is not native DRx."""
        native = drx_standard.NativeProfile() if profile is drx_standard else profile
        if not isinstance(native, drx_standard.NativeProfile):
            return None
        encoders = self._encoders.setdefault(native, _Encoders(self._expanded, native))
        return FastPath(encoders, source=source, environment=environment)


class _Encoders(dict[str, _Encode]):
    """The functions of a profile by event type, each compiled at the first event of its type.

    Compiling one takes 4 ms; compiling all at startup took a tenth of it.
    """

    def __init__(self, expanded: Mapping[str, Any], profile: drx_standard.NativeProfile) -> None:
        """Defers types that the profile ignores, and prescription ids with a prefix that it refuses."""
        super().__init__()
        self._prefixes = profile.prefixes
        fields = next(iter(expanded.values()))["fields"]
        (symbols,) = (each["type"]["symbols"] for each in fields if each["name"] == "environment")
        self.environments = {symbol: varint(index) for index, symbol in enumerate(symbols)}
        # Bodies never have the type `other.reported`, only a sender's own type.
        self._schemas = {each: avro for each, avro in expanded.items() if each not in {OTHER_REPORTED, *profile.ignore}}

    def __missing__(self, event_type: str) -> _Encode | None:
        """Compile the function of a known type."""
        avro = self._schemas.get(event_type)
        if avro is None:
            return None
        encode = self[event_type] = _Function(self._prefixes).compile(event_type, avro)
        return encode


def _instant(text: str) -> datetime:
    if _is_instant(text) is None:
        raise _Defer
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


@lru_cache(RECEIPTS_MAX)
def _receipt(received_at: datetime) -> tuple[int, bytes]:
    """Return the microseconds of a receipt, and their encoding."""
    received_us = microseconds(received_at)
    return received_us, varint(received_us)


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if day.isoformat() != text:  # ISO 8601 has other spellings
        raise _Defer
    return day


def _decimal(text: str) -> Decimal:
    if _is_decimal(text) is None:
        raise _Defer
    return Decimal(text)


@cache
def _text_encoder(kind: object) -> Callable[[str], bytes]:
    """Return a caching encoder for a string that Avro stores as a day or decimal, since values recur often."""
    if kind is AwareDatetime:
        encode = compile_encoder({"type": "long", "logicalType": "timestamp-micros"})
        return lambda text: encode(_instant(text))
    if kind is date:
        encode = compile_encoder({"type": "int", "logicalType": "date"})
        return lru_cache(_CACHED_MAX)(lambda text: encode(_day(text)))
    if isinstance(kind, Digits):
        encode = compile_encoder({"type": "bytes", "logicalType": "decimal", **asdict(kind)})
        return lru_cache(_CACHED_MAX)(lambda text: encode(_decimal(text)))
    raise TypeError(kind)


class _Function:
    """Generates the source of one function."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._reserved = record_keys.OUR_PREFIXES + prefixes
        self._lines: list[str] = []
        self._names: dict[str, Any] = {
            "Defer": _Defer,
            "numbers": VARINTS,
            "nullable_numbers": VALUE_VARINTS,
            "number": number,
            "encoded_map": compile_encoder({"type": "map", "values": "string"}),
        }
        self._made = 0

    def compile(self, event_type: str, avro: Mapping[str, Any]) -> _Encode:
        model = EVENT_MODELS[event_type]
        given = {
            **{name: name for name in _GIVEN},
            "event_type": encode_text(event_type),
            "contract_version": encode_text(VERSION),
            "extensions": END,
            **({} if issubclass(model, PrescriptionRecord) else {"prescription_id": NULL}),
        }
        of_data = model.model_fields.keys() - given.keys() - _ENVELOPE.keys() - kept_words(model)
        self._line(0, f"def encode(document, data, {', '.join(_GIVEN)}):")
        self._known(1, "document", {*_APART, *_ENVELOPE.values()})
        self._line(1, "if data.__class__ is not dict: raise Defer")
        self._known(1, "data", of_data)
        self._line(1, "members = len(document) + len(data)")
        self._line(1, "of_document = document.get; of_data = data.get")
        self._key(1, _KEY_PATHS[record_keys.KEY_RULES.get(event_type, record_keys.prescription_key)])
        record = self._joined(1, b"", model, avro, "of_data", given=given)
        self._line(1, f"return members, key, prescription_id, {record}")
        exec("\n".join(self._lines), self._names)  # noqa: S102 - only names from our own schemas and models
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

    def _key(self, depth: int, paths: tuple[_Path, ...]) -> None:
        """Generate code that sets `key`, and `prescription_id` if the key is one."""
        path, *others = paths
        item = "document"
        for name in path[:-1]:
            self._line(depth, f"inner = {item}.get({name!r})")
            self._line(depth, "if inner.__class__ is not dict: raise Defer")
            item = "inner"
        self._line(depth, f"key = {item}.get({path[-1]!r})")
        if others:
            self._line(depth, "if key is None:")
            self._key(depth + 1, tuple(others))
            self._line(depth, "else:")
            depth += 1
        self._line(depth, "if key.__class__ is not str or not key: raise Defer")
        if path == _REQUEST_ID:
            self._line(depth, "key = 'req:' + key")
        reserved = f"(?!{'|'.join(map(re.escape, self._reserved))})" if path == _PRESCRIPTION_ID else ""
        conforms = self._constant(re.compile(reserved + record_keys.KEY_PATTERN).fullmatch)
        self._line(depth, f"if {conforms}(key) is None: raise Defer")
        self._line(depth, f"prescription_id = {'key' if path == _PRESCRIPTION_ID else None}")

    def _joined(
        self,
        depth: int,
        lead: bytes,
        model: type[ContractRecord],
        avro: Mapping[str, Any],
        get: str,
        *,
        given: Mapping[str, bytes | str] = MappingProxyType({}),
    ) -> str:
        """Generate code that reads the fields not `given`; return the expression for all bytes, preceded by `lead`."""
        blank, kept = blank_record(model), kept_words(model)
        parts: list[bytes | str] = [lead]
        for field in avro["fields"]:
            name = field["name"]
            if name in given:
                parts.append(given[name])
                continue
            info = model.model_fields[name]
            absent = None if info.is_required() else compile_encoder(field["type"])(blank[name])
            if name in kept:  # filled only for an unknown enum value, which defers
                parts.append(absent or b"")
            elif given and name in _ENVELOPE:
                parts.append(
                    self._field(depth, plain(info), field["type"], f"of_document({_ENVELOPE[name]!r})", absent)
                )
            else:
                parts.append(self._field(depth, plain(info), field["type"], f"{get}({name!r})", absent))
        return f"b''.join(({', '.join(_merged(parts))},))"

    def _field(self, depth: int, kind: Any, avro: Any, found: str, absent: bytes | None) -> str:
        """Generate code that reads a member; return the variable of its bytes. `absent` is None if it is required."""
        item = self._variable()
        target = _bytes_of(item)
        self._line(depth, f"{item} = {found}")
        self._line(depth, f"if {item} is None:")
        self._line(depth + 1, "raise Defer" if absent is None else f"{target} = {absent!r}")
        self._line(depth, "else:")
        is_nullable = isinstance(avro, list)
        self._value(depth + 1, kind, avro[1] if is_nullable else avro, item, VALUE if is_nullable else b"")
        return target

    def _value(self, depth: int, kind: Any, avro: Any, item: str, lead: bytes) -> None:
        """Generate code that puts the bytes of `item`, not None, into `_bytes_of(item)`, preceded by `lead`."""
        if get_origin(kind) is list:
            self._array(depth, get_args(kind)[0], avro["items"], item, lead)
        elif get_origin(kind) is dict:
            self._line(depth, f"{_bytes_of(item)} = {lead!r} + encoded_map({item}); members += len({item})")
        elif isinstance(kind, type) and issubclass(kind, ContractRecord):
            self._record(depth, kind, avro, item, lead)
        else:
            for line in self._scalar(kind, avro, item, lead):
                self._line(depth, line)

    def _scalar(self, kind: Any, avro: Any, item: str, lead: bytes) -> Iterator[str]:
        target, front = _bytes_of(item), f"{lead!r} + " if lead else ""
        inner = get_args(kind)
        size = inner[1] if len(inner) > 1 else kind
        if isinstance(size, Characters):
            yield f"if {item}.__class__ is str and len({item}) > {size.most}: raise Defer"
        if kind is str or isinstance(size, Characters):
            numbers = "nullable_numbers" if lead else "numbers"
            yield f"if {item}.__class__ is not str: raise Defer"
            yield f"raw = {item}.encode(); size = len(raw)"
            yield f"{target} = ({numbers}[size] if size < {SHORT} else {front}number(size)) + raw"
        elif get_origin(kind) is Literal:
            encoded = {symbol: varint(index) for index, symbol in enumerate(avro["symbols"])}
            symbols = {symbol: lead + encoded[symbol] for symbol in inner if symbol != UNKNOWN}
            yield f"{target} = {self._constant(symbols)}.get({item}) if {item}.__class__ is str else None"
            yield f"if {target} is None: raise Defer"
        elif kind is bool:
            yield f"if {item}.__class__ is not bool: raise Defer"
            yield f"{target} = {lead + _TRUE!r} if {item} else {lead + _FALSE!r}"
        elif isinstance(size, Bits):
            fits = f"{size.least} <= {item} <= {size.greatest}"
            yield f"if {item}.__class__ is not int or not {fits}: raise Defer"
            yield f"{target} = {front}number({item})"
        else:
            yield f"if {item}.__class__ is not str: raise Defer"
            yield f"{target} = {front}{self._constant(_text_encoder(size))}({item})"

    def _array(self, depth: int, kind: Any, avro: Any, item: str, lead: bytes) -> None:
        parts, each = self._variable(), self._variable()
        self._line(depth, f"if {item}.__class__ is not list: raise Defer")
        self._line(depth, f"{parts} = [{lead!r}]")
        self._line(depth, f"if {item}: {parts}.append(number(len({item})))")
        self._line(depth, f"for {each} in {item}:")
        self._value(depth + 1, kind, avro, each, b"")
        self._line(depth + 1, f"{parts}.append({_bytes_of(each)})")
        self._line(depth, f"{parts}.append({END!r}); {_bytes_of(item)} = b''.join({parts})")

    def _record(self, depth: int, model: type[ContractRecord], avro: Any, item: str, lead: bytes) -> None:
        get = self._variable()
        self._line(depth, f"if {item}.__class__ is not dict: raise Defer")
        self._known(depth, item, model.model_fields.keys() - kept_words(model))
        self._line(depth, f"members += len({item}); {get} = {item}.get")
        self._line(depth, f"{_bytes_of(item)} = {self._joined(depth, lead, model, avro, get)}")


def _bytes_of(item: str) -> str:
    """Return the name of the variable for the bytes of a variable."""
    return f"encoded_{item}"


def _merged(parts: Iterable[bytes | str]) -> Iterator[str]:
    """Yield expressions, with neighbouring constants merged."""
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
