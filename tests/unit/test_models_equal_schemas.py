"""The pydantic models and the Avro schemas are two spellings of one contract."""

from __future__ import annotations

import types
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import Bits, Digits, Record
from bridge.registry.loader import read_schemas, schemas_root
from bridge.registry.schemas import expand

SCHEMAS = read_schemas(schemas_root())

NO_DEFAULT = "no default"
PLAIN = {
    str: "string",
    bool: "boolean",
    date: {"type": "int", "logicalType": "date"},
    AwareDatetime: {"type": "long", "logicalType": "timestamp-micros"},
    dict[str, str]: {"type": "map", "values": "string"},
}
WIDTHS = {32: "int", 64: "long"}


def model_fields(model: type[Record]) -> list[dict[str, Any]]:
    """Return the fields of a model in the words of a schema."""
    hints = get_type_hints(model, include_extras=True)
    return [
        {"name": name, "type": avro_type(hints[name]), "default": default(info), "phi": phi(info)}
        for name, info in model.model_fields.items()
    ]


def default(info: FieldInfo) -> Any:
    return NO_DEFAULT if info.is_required() else info.get_default(call_default_factory=True, validated_data={})


def phi(info: FieldInfo) -> str | None:
    assert not callable(info.json_schema_extra)
    letter = (info.json_schema_extra or {}).get("phi")
    assert letter is None or isinstance(letter, str)
    return letter


def avro_type(hint: Any) -> Any:
    """Return what a type of a model is in a schema; a field class such as `Direct` adds nothing to it."""
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, Record):
        return {"record": hint.__name__, "fields": model_fields(hint)}
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        return sized(arguments)
    if get_origin(hint) in {Union, types.UnionType}:
        inner, none = arguments
        assert none is types.NoneType
        return ["null", avro_type(inner)]
    if get_origin(hint) is Literal:
        return {"enum": set(arguments)}
    assert get_origin(hint) is list, hint
    return {"type": "array", "items": avro_type(arguments[0])}


def sized(arguments: tuple[Any, ...]) -> Any:
    """Return the type of an `Annotated`: a number with its size, or the bare type of a field with a PHI class."""
    inner, *notes = arguments
    sizes = [note for note in notes if not isinstance(note, FieldInfo)]
    match sizes:
        case [Bits(width=width)]:
            assert inner is int
            return WIDTHS[width]
        case [Digits(precision=precision, scale=scale)]:
            assert inner is Decimal
            return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    assert not sizes
    return avro_type(inner)


def schema_fields(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": field["name"],
            "type": schema_type(field["type"]),
            "default": field.get("default", NO_DEFAULT),
            "phi": field.get("phi"),
        }
        for field in record["fields"]
    ]


def schema_type(schema: Any) -> Any:
    """Return the type without docs and without the order of symbols, which only the wire needs."""
    if isinstance(schema, list):
        return [schema_type(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    match schema["type"]:
        case "record":
            return {"record": schema["name"].removeprefix("drx.v1."), "fields": schema_fields(schema)}
        case "enum":
            return {"enum": set(schema["symbols"])}
        case "array":
            return {"type": "array", "items": schema_type(schema["items"])}
    return schema


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_a_model_has_the_fields_of_its_record(event_type: str) -> None:
    """Name, order, type, size, nullability, default and PHI class, down to the last record within."""
    model = EVENT_MODELS[event_type]

    assert model_fields(model) == schema_fields(expand(SCHEMAS[f"drx.v1.{model.__name__}"]))
