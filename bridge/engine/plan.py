"""The plan: the contract of every event type, as plain data from which the engine is built.

The engine turns a body straight into the bytes of its Avro record, without the document, the notes and the value that
the reference (`json_body.py`, `profiles/drx_standard.py`, `avro/encoder.py`) makes on the way. It answers only a
*plainly conforming* delivery and *defers* any other: it returns nothing, and the reference decides from the start. So the
reference stays the only definition of the contract. The plan is derived from the contract's models and the schemas, as
the readers and encoders of the reference are, and tests compare the engine with the reference.

**Plainly conforming** means all of the following; the engine may defer more, never less.

- The body is one JSON object (RFC 8259, UTF-8, no byte order mark, no lone surrogate), no name occurs twice in an object,
  and no number is written `-0`.
- `type` is a type of the plan, `version` is `Plan.version`, `environment` is that of the source, and `id` is absent, null
  or the webhook id. `data` is an object.
- `timestamp` is an instant (below), not later than `ahead_max_us` after the receipt.
- Every other member is one that the type's fields name: of the body where the field is from `envelope`, of `data` where it
  is from `member`. A member that is null counts as absent. An absent one is written as `absent`; without that, defer.
- The key conforms: of `EventPlan.key` the first path whose value is there and not null decides. The value is a string and
  not empty; it does not begin with one of `reserved`; `prefix` and value together match `Plan.key_pattern`.

**The value** is the fields in their order, one behind the other (Avro 1.12, "Binary Encoding"). What a field is made of is
its `origin`: `event_id` (string), `occurred_at` and `received_at` (microseconds, a long), `source` (string) and
`environment` (`Plan.environments`) are given by the delivery; `constant` is always `absent`; `envelope` and `member`
are read by `kind`, with the byte 02 in front if `nullable`. The prefix of the wire format is no part of it.

| kind | JSON | Avro |
|---|---|---|
| text | string | length, UTF-8 |
| word | string of `words` | the bytes that `words` has for it |
| boolean | `true`, `false` | 01, 00 |
| integer | number without fraction and exponent, `least` to `greatest` | zigzag varint |
| decimal | string `-?digits[.digits]`, at most `scale` digits behind the point, at most `precision` once filled up to `scale` | length, shortest two's complement, big-endian, of the unscaled number |
| day | string `YYYY-MM-DD`, a day of the years 1 to 9999 | days since 1970, zigzag varint |
| instant | string `YYYY-MM-DDThh:mm:ss[.f]` with 1 to 6 digits `f` and `Z` or `±hh:mm`, in UTC within the years 1 to 9999, no leap second | microseconds since 1970, zigzag varint |
| map | object of strings | count, pairs, 00; only 00 if empty |
| array | array of `items`, none null | count, items, 00; only 00 if empty |
| record | object | `fields`, all of them `member` or `constant` |
"""  # noqa: E501 - the rows of a table

from __future__ import annotations

import builtins
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from pydantic import AwareDatetime

from bridge.avro.encoder import compile_encoder, varint
from bridge.contract.envelope import VERSION, EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.contract.fields import UNKNOWN, Bits, Digits, Record, kept_words, plain
from bridge.event import AHEAD_MAX
from bridge.ingress.profiles import keys
from bridge.ingress.profiles.plan import blank_record
from bridge.registry.schemas import expand

Origin = Literal["event_id", "occurred_at", "received_at", "source", "environment", "constant", "envelope", "member"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read and written; which attributes mean something depends on `name`."""

    name: Literal["text", "word", "boolean", "integer", "decimal", "day", "instant", "map", "array", "record"]
    words: Mapping[str, bytes] = field(default_factory=dict)
    least: int = 0
    greatest: int = 0
    precision: int = 0
    scale: int = 0
    items: Kind | None = None
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an Avro record.

    Attributes:
        name: Its name in the schema.
        origin: What it is made of.
        member: Name of the JSON member, for `envelope` and `member`.
        kind: How the member is read and written.
        nullable: The schema is a union of null and the kind.
        absent: Bytes that stand for no member; None if there must be one.
    """

    name: str
    origin: Origin
    member: str = ""
    kind: Kind | None = None
    nullable: bool = False
    absent: bytes | None = None


@dataclass(frozen=True, slots=True)
class KeyPath:
    """A place from which a record key may come.

    Attributes:
        path: Member names from the root of the body.
        prefix: What the key has before the value.
        reserved: What the value must not begin with.
    """

    path: tuple[str, ...]
    prefix: str = ""
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventPlan:
    """One event type: where the key of its record comes from, and the record's fields in order."""

    key: tuple[KeyPath, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All event types, and what they share."""

    version: str
    key_pattern: str
    ahead_max_us: int
    environments: Mapping[str, bytes]
    events: Mapping[str, EventPlan]


_EMPTY = b"\0"  # an array or a map without items
_GIVEN: frozenset[Origin] = frozenset({"event_id", "occurred_at", "received_at", "source", "environment"})
# Fields that members of the body itself fill, and the names of these members.
_ENVELOPE: Mapping[str, str] = MappingProxyType(
    {"account_id": "account_id", "sequence": "sequence", "correlation_id": "correlation_id", "origin_source": "source"}
)


def make_plan(
    schemas: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, str],
    *,
    prefixes: tuple[str, ...] = (),
    ignore: frozenset[str] = frozenset(),
) -> Plan:
    """Derive the plan from the contract's models.

    Args:
        schemas: Record full name -> its self-contained schema.
        records: Event type -> record full name.
        prefixes: What no prescription id may begin with, besides the bridge's own prefixes.
        ignore: Event types that are left to the reference.
    """
    key_paths = _key_paths(prefixes)
    inlined = {event_type: expand(schemas[record]) for event_type, record in records.items()}
    (ping, *_) = inlined.values()
    (symbols,) = (each["type"]["symbols"] for each in ping["fields"] if each["name"] == "environment")
    return Plan(
        version=VERSION,
        key_pattern=keys.KEY_PATTERN,
        ahead_max_us=AHEAD_MAX // timedelta(microseconds=1),
        environments={symbol: varint(place) for place, symbol in enumerate(symbols)},
        events={
            event_type: EventPlan(
                key=key_paths[keys.KEY_RULES.get(event_type, keys.prescription_key)],
                fields=_event_fields(event_type, model, inlined[event_type]),
            )
            for event_type, model in EVENT_MODELS.items()
            # No body has the type `other.reported`, only a sender's own.
            if event_type != OTHER_REPORTED and event_type not in ignore
        },
    )


def _key_paths(prefixes: tuple[str, ...]) -> Mapping[keys.KeyRule, tuple[KeyPath, ...]]:
    """Return the key rules of the reference as data."""
    prescription = KeyPath(("data", "prescription_id"), reserved=keys.OUR_PREFIXES + prefixes)
    return {
        keys.prescription_key: (prescription,),
        keys.request_key: (prescription, KeyPath(("data", "request_id"), prefix="req:")),
        keys.prescriber_key: (KeyPath(("data", "prescriber", "id")),),
        keys.account_key: (KeyPath(("account_id",)),),
    }


def _event_fields(event_type: str, model: type[EventRecord], avro: Mapping[str, Any]) -> tuple[Field, ...]:
    of_envelope = set(EventRecord.model_fields)
    if issubclass(model, PrescriptionRecord):
        of_envelope.remove("prescription_id")  # a member of `data`, though every record leads with it
    fields = []
    for each in _record_fields(model, avro):
        name = each.name
        if name in _GIVEN:
            fields.append(Field(name, name))
        elif name == "event_type":
            fields.append(_text_constant(name, event_type))
        elif name == "contract_version":
            fields.append(_text_constant(name, VERSION))
        elif name in _ENVELOPE:
            fields.append(replace(each, origin="envelope", member=_ENVELOPE[name]))
        elif name in of_envelope or name == "extensions":
            fields.append(Field(name, "constant", absent=each.absent if name in of_envelope else _EMPTY))
        else:
            fields.append(each)
    return tuple(fields)


def _record_fields(model: type[Record], avro: Mapping[str, Any]) -> tuple[Field, ...]:
    """Describe the fields of a record as if each were filled by the member of its name."""
    blank = blank_record(model)
    types = {name: plain(info) for name, info in model.model_fields.items()}
    # Filled only beside a word outside its enum, which no plainly conforming delivery has.
    empty = kept_words(model)
    fields = []
    for each in avro["fields"]:
        name, of_value = each["name"], each["type"]
        nullable = isinstance(of_value, list)
        absent = None if model.model_fields[name].is_required() else _encoded(of_value, blank[name])
        if name in empty:
            fields.append(Field(name, "constant", absent=absent))
        else:
            kind = _kind(types[name], of_value[1] if nullable else of_value)
            fields.append(Field(name, "member", member=name, kind=kind, nullable=nullable, absent=absent))
    return tuple(fields)


_SIMPLE: Mapping[object, Kind] = MappingProxyType(
    {str: Kind("text"), bool: Kind("boolean"), date: Kind("day"), AwareDatetime: Kind("instant")}
)


def _kind(annotation: Any, avro: Any) -> Kind:
    """Describe a type of the models, not null."""
    inner = get_args(annotation)
    match get_origin(annotation):
        case typing.Literal:
            places = {symbol: varint(place) for place, symbol in enumerate(avro["symbols"])}
            kind = Kind("word", words={word: places[word] for word in inner if word != UNKNOWN})
        case builtins.list:
            kind = Kind("array", items=_kind(inner[0], avro["items"]))
        case builtins.dict:
            kind = Kind("map")
        case typing.Annotated:
            kind = _sized(inner[1])
        case _ if annotation in _SIMPLE:
            kind = _SIMPLE[annotation]
        case _:
            kind = Kind("record", fields=_record_fields(annotation, avro))
    return kind


def _sized(mark: object) -> Kind:
    match mark:
        case Bits():
            return Kind("integer", least=mark.least, greatest=mark.greatest)
        case Digits():
            return Kind("decimal", precision=mark.precision, scale=mark.scale)
    raise TypeError(mark)


def _encoded(avro: Any, value: object) -> bytes:
    """Encode a default."""
    encode = compile_encoder({"type": "record", "name": "one", "fields": [{"name": "value", "type": avro}]})
    return encode({"value": value})


def _text_constant(name: str, text: str) -> Field:
    return Field(name, "constant", absent=varint(len(text.encode())) + text.encode())
