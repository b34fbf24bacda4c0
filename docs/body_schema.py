"""JSON Schema of native DRx bodies (contract v1), derived from their records."""
# ruff: noqa: INP001 - a script next to its pages, not a package

import inspect
from collections.abc import Mapping
from datetime import date
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from bridge.contract.envelope import VERSION, EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED, REPORTED_TYPE
from bridge.contract.fields import Bits, Characters, ContractRecord, Digits
from bridge.mapping.record_keys import KEY_PATTERN, KEY_RULES, OUR_PREFIXES

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/"
UNKNOWN = "UNKNOWN"
INSTANT: Schema = {"type": "string", "format": "date-time"}
_SIMPLE: Mapping[object, Schema] = {
    bool: {"type": "boolean"},
    str: {"type": "string"},
    date: {"type": "string", "format": "date"},
    AwareDatetime: INSTANT,
}
# docs/contract.md §4, "Key"; a key of a request is its id with the prefix `req:`.
_KEY: Schema = {"type": "string", "pattern": f"^{KEY_PATTERN}$"}
_PRESCRIPTION: Schema = {"type": "string", "pattern": f"^(?!{'|'.join(OUR_PREFIXES)}){KEY_PATTERN}$"}
_REQUEST: Schema = {**_KEY, "maxLength": 128 - len("req:")}
# Fields that the bridge sets, and those with another name in the body.
_OURS = frozenset(EventRecord.model_fields) - {"account_id", "sequence", "correlation_id"}


def body_schemas() -> dict[str, Schema]:
    """Return `Event`, the envelope, each type and every shared record."""
    records: dict[str, Schema] = {}
    types = {model.__name__: _event(kind, model, records) for kind, model in EVENT_MODELS.items()}
    event: Schema = {
        "description": "One event of native DRx, contract v1.",
        "oneOf": [{"$ref": REFERENCE + name} for name in types],
        "discriminator": {
            "propertyName": "type",
            "mapping": {kind: REFERENCE + model.__name__ for kind, model in EVENT_MODELS.items()},
        },
    }
    return {"Event": event, "Envelope": _envelope(records), **types, **dict(sorted(records.items()))}


def _envelope(records: dict[str, Schema]) -> Schema:
    own: dict[str, Schema] = {
        "id": {"type": ["string", "null"], "description": "As webhook-id; that one wins if they differ."},
        "type": {"type": "string", "pattern": f"^{REPORTED_TYPE}$"},
        "version": {"const": VERSION},
        "timestamp": {**INSTANT, "description": "When it happened."},
        "environment": {"type": "string", "enum": ["production", "sandbox"], "description": "That of the source."},
        "source": {"type": ["string", "null"], "description": "Which platform instance speaks."},
    }
    fields = EventRecord.model_fields
    rest = {name: _member(fields[name], records) for name in ("account_id", "sequence", "correlation_id")}
    required = ["type", "version", "timestamp", "environment", "account_id", "data"]
    return {"type": "object", "required": required, "properties": {**own, **rest, "data": {"type": "object"}}}


def _event(kind: str, model: type[EventRecord], records: dict[str, Schema]) -> Schema:
    without = _OURS | {"account_id", "sequence", "correlation_id", "extensions", "reported_type"}
    about_prescription = issubclass(model, PrescriptionRecord)
    body = _object(model, records, without=without - {"prescription_id"} if about_prescription else without)
    members: Schema = {"type": {"const": kind}, "data": body}
    if kind == OTHER_REPORTED:
        # Any other type; without a prescription the account is the key.
        members |= {"type": {"not": {"enum": [each for each in EVENT_MODELS if each != kind]}}, "account_id": _KEY}
    elif about_prescription:
        _set_key(kind, body)
    elif kind == "system.ping":
        members["account_id"] = _KEY
    else:
        prescriber = body["properties"]["prescriber"]
        body["properties"]["prescriber"] = {"allOf": [prescriber], "required": ["id"], "properties": {"id": _KEY}}
    return {
        "description": inspect.getdoc(model),
        "allOf": [{"$ref": f"{REFERENCE}Envelope"}],
        "properties": members,
    }


def _set_key(kind: str, body: Schema) -> None:
    """Add the pattern of the record's key, and make it required."""
    members = body["properties"]
    members["prescription_id"] |= _PRESCRIPTION | {"type": members["prescription_id"]["type"]}
    if kind in KEY_RULES:
        members["request_id"] |= _REQUEST
    else:
        body["required"] = ["prescription_id", *body["required"]]
        members["prescription_id"]["type"] = "string"


def _object(
    model: type[ContractRecord], records: dict[str, Schema], *, without: frozenset[str] = frozenset()
) -> Schema:
    fields = {name: field for name, field in model.model_fields.items() if name not in without}
    # The bridge stores values outside enums there; senders do not send them.
    kept = {name for name in fields if name.startswith("raw_") and name.removeprefix("raw_") in fields}
    names = [name for name in fields if name not in kept]
    return {
        "type": "object",
        "required": [name for name in names if fields[name].is_required()],
        "properties": {name: _member(fields[name], records) for name in names},
    }


def _member(field: FieldInfo, records: dict[str, Schema]) -> Schema:
    plain: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    nullable = get_origin(plain) in {Union, UnionType}
    if nullable:
        (plain,) = (one for one in get_args(plain) if one is not type(None))
    schema = _type(plain, records)
    if nullable or not field.is_required():
        schema = _or_null(schema)
    extra = field.json_schema_extra
    return {**schema, "x-phi": extra["phi"]} if isinstance(extra, dict) else schema


def _or_null(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    return nullable | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})


def _type(plain: Any, records: dict[str, Schema]) -> Schema:
    origin, inner = get_origin(plain), get_args(plain)
    if plain in _SIMPLE:
        return dict(_SIMPLE[plain])
    if origin is Literal:
        return {"type": "string", "enum": [word for word in inner if word != UNKNOWN]}
    if origin is list:
        return {"type": "array", "items": _type(inner[0], records)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(inner[1], records)}
    if origin is Annotated:
        return _sized(inner[1])
    if plain.__name__ not in records:
        records[plain.__name__] = {"description": inspect.getdoc(plain), **_object(plain, records)}
    return {"$ref": REFERENCE + plain.__name__}


def _sized(mark: object) -> Schema:
    if isinstance(mark, Bits):
        return {"type": "integer", "format": f"int{mark.width}"}
    if isinstance(mark, Digits):
        whole = mark.precision - mark.scale
        said = f"A decimal with at most {whole} digits before the point; more than {mark.scale} after it are rounded."
        return {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "description": said}
    if isinstance(mark, Characters):
        return {"type": "string", "maxLength": mark.most}
    raise TypeError(mark)
