"""Compile an Avro schema into one strict, fast function from a value to its bytes.

Why not fastavro here: it writes 1.9 and True into a `long`, takes a naive datetime for local time, and costs four times
as much, since it validates every union by trial. Tests hold both to the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.kafka.scalars import ENCODERS, NULL, VALUE, Encode, fail, nullable_string, string, varint

Named = dict[str, Mapping[str, Any]]

_END = b"\x00"  # the empty block that ends an array or a map


def compile_encoder(schema: Mapping[str, Any]) -> Encode:
    """Return the function that writes a value of `schema`, or raises `EncodeError`.

    Args:
        schema: Self-contained and parsed: every name is a full name.

    Raises:
        ValueError: The schema uses a part of Avro that the house rules leave out.
    """
    return _compile(schema, "", {})


def _compile(schema: Any, path: str, named: Named) -> Encode:
    if isinstance(schema, list):
        return _nullable(schema, path, named)
    if isinstance(schema, str):
        schema = named.get(schema, {"type": schema})
    if "name" in schema:
        named[schema["name"]] = schema
    if schema["type"] == "record":
        return _record(schema, path, named)
    if schema["type"] == "array":
        return _array(schema, path, named)
    if schema["type"] == "map":
        return _map(schema, path, named)
    make = ENCODERS.get((schema["type"], schema.get("logicalType")))
    if make is None:
        message = f"{path}: no encoder for this type"
        raise ValueError(message)
    return make(schema, path)


def _nullable(schema: list[Any], path: str, named: Named) -> Encode:
    if len(schema) != 2 or schema[0] != "null":  # noqa: PLR2004 -- null and one type
        message = f"{path}: a union must be null and one type"
        raise ValueError(message)
    if schema[1] == "string":
        return nullable_string(path)
    encode_value = _compile(schema[1], path, named)

    def encode(value: Any) -> bytes:
        return NULL if value is None else VALUE + encode_value(value)

    return encode


def _record(schema: Mapping[str, Any], path: str, named: Named) -> Encode:
    prefix = f"{path}." if path else ""
    fields = [(each["name"], _compile(each["type"], prefix + each["name"], named)) for each in schema["fields"]]
    names = {name for name, _ in fields}
    defaults = {each["name"]: each["default"] for each in schema["fields"] if "default" in each}
    count = len(fields)

    def complete(value: Mapping[str, Any]) -> Mapping[str, Any]:
        missing = names - value.keys() - defaults.keys()
        if missing:
            fail(prefix + min(missing))
        if value.keys() - names:
            fail(path)  # the unknown name is not told: it may itself be a value
        return {**defaults, **value}

    def encode(value: Any) -> bytes:
        if type(value) is not dict and not isinstance(value, Mapping):
            fail(path)
        if len(value) == count:
            try:  # as many as there are fields, and each field is there: nothing else can be
                return b"".join([write(value[name]) for name, write in fields])
            except KeyError:
                pass
        whole = complete(value)
        return b"".join([write(whole[name]) for name, write in fields])

    return encode


def _array(schema: Mapping[str, Any], path: str, named: Named) -> Encode:
    encode_item = _compile(schema["items"], f"{path}.*", named)

    def encode(value: Any) -> bytes:
        if type(value) is not list and type(value) is not tuple:
            fail(path)
        if not value:
            return _END
        return b"".join([varint(len(value)), *map(encode_item, value), _END])

    return encode


def _map(schema: Mapping[str, Any], path: str, named: Named) -> Encode:
    encode_key = string(schema, f"{path}.*")
    encode_item = _compile(schema["values"], f"{path}.*", named)

    def encode(value: Any) -> bytes:
        if type(value) is not dict and not isinstance(value, Mapping):
            fail(path)
        if not value:
            return _END
        items = [encode_key(key) + encode_item(item) for key, item in value.items()]
        return b"".join([varint(len(items)), *items, _END])

    return encode
