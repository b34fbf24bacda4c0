"""The plan: the contract of every event type, as plain data from which the engine is built.

The engine turns a body straight into the bytes of its Avro record, without the document, the notes and the value that
the reference (`json_body.py`, `profiles/drx_standard.py`, `avro/encoder.py`) makes on the way. It answers only a
*plainly conforming* delivery and *defers* any other: it returns nothing, and the reference decides from the start. So
the reference stays the only definition of the contract; tests compare the two.

**Plainly conforming** means all of the following; the engine may defer more, never less.

- The body is one JSON object without a byte order mark, a lone surrogate, a name twice in an object, or a number `-0`.
- `type` is a type of the plan, `version` the contract's, `environment` the source's; `id` is absent, null or that of
  the delivery; `timestamp` is an instant, not later than `AHEAD_MAX` after the receipt.
- Every other member, in the body or in `data`, is one that a field of the type is read from. Its value is written in
  the usual way: a string for a decimal, a day or an instant, a word of the enum. A null is the same as no member.
- Of `EventPlan.key` the first path whose value is there decides, and that conforms.
"""

from __future__ import annotations

import builtins
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin

from pydantic import AwareDatetime

from bridge.avro.encoder import compile_encoder, varint
from bridge.contract.envelope import VERSION, EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.contract.fields import UNKNOWN, Bits, ContractRecord, kept_words, plain
from bridge.ingress.profiles import keys
from bridge.ingress.profiles.readers import blank_record
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
    """One field of an Avro record."""

    name: str
    origin: Origin  # what it is made of
    member: str = ""  # name of the JSON member, for `envelope` and `member`
    kind: Kind | None = None  # how the member is read and written
    nullable: bool = False  # the schema is a union of null and the kind
    absent: bytes | None = None  # bytes that stand for no member; None if there must be one


@dataclass(frozen=True, slots=True)
class KeyPath:
    """A place from which a record key may come."""

    path: tuple[str, ...]  # member names from the root of the body
    prefix: str = ""  # what the key has before the value
    reserved: tuple[str, ...] = ()  # what the value must not begin with


@dataclass(frozen=True, slots=True)
class EventPlan:
    """One event type: where the key of its record comes from, and the record's fields in order."""

    key: tuple[KeyPath, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All event types, and the encoded value of each environment."""

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
    """Derive the plan from the contract's models and schemas; types in `ignore` are left to the reference."""
    key_paths = _key_paths(prefixes)
    inlined = {event_type: expand(schemas[record]) for event_type, record in records.items()}
    (ping, *_) = inlined.values()
    (symbols,) = (each["type"]["symbols"] for each in ping["fields"] if each["name"] == "environment")
    return Plan(
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


def _record_fields(model: type[ContractRecord], avro: Mapping[str, Any]) -> tuple[Field, ...]:
    """Describe the fields of a record, each filled by the member of the same name."""
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
        case typing.Annotated if isinstance(inner[1], Bits):
            kind = Kind("integer", least=inner[1].least, greatest=inner[1].greatest)
        case typing.Annotated:
            kind = Kind("decimal", precision=inner[1].precision, scale=inner[1].scale)
        case _ if annotation in _SIMPLE:
            kind = _SIMPLE[annotation]
        case _:
            kind = Kind("record", fields=_record_fields(annotation, avro))
    return kind


def _encoded(avro: Any, value: object) -> bytes:
    """Encode a default."""
    encode = compile_encoder({"type": "record", "name": "one", "fields": [{"name": "value", "type": avro}]})
    return encode({"value": value})


def _text_constant(name: str, text: str) -> Field:
    return Field(name, "constant", absent=varint(len(text.encode())) + text.encode())
