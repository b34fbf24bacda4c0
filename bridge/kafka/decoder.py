"""Compile an Avro schema into one strict, fast function from bytes to a value; the inverse of `encoder`.

Why not fastavro here: it looks into the schema anew at each field, and costs nearly twice as much; and it takes what no
writer writes. Tests hold both to the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.kafka.scalar_decoders import DECODERS, NOT_SHORT, VALUE, Decode, length, nullable_string, number, string

Named = dict[str, Decode]


def compile_decoder(schema: Mapping[str, Any]) -> Decode:
    """Return the function that reads a value of `schema`.

    Args:
        schema: Self-contained and parsed: every name is a full name.

    Raises:
        ValueError: The schema uses a part of Avro that the house rules leave out, or contains itself.
    """
    return _compile(schema, {})


def _compile(schema: Any, named: Named) -> Decode:
    if isinstance(schema, list):
        return _nullable(schema, named)
    if isinstance(schema, str):
        known = named.get(schema)
        if known is not None:
            return known
        schema = {"type": schema}
    kind = schema["type"]
    if kind in _COMPOUND:
        found = _COMPOUND[kind](schema, named)
    elif make := DECODERS.get((kind, schema.get("logicalType"))):
        found = make(schema)
    else:
        message = "no decoder for this type"
        raise ValueError(message)
    if "name" in schema:
        named[schema["name"]] = found
    return found


def _nullable(schema: list[Any], named: Named) -> Decode:
    if len(schema) != 2 or schema[0] != "null":  # noqa: PLR2004 -- null and one type
        message = "a union must be null and one type"
        raise ValueError(message)
    decode_value = _compile(schema[1], named)
    if decode_value is string:
        return nullable_string

    def decode(data: bytes, at: int) -> tuple[Any, int]:
        branch = data[at]
        if not branch:
            return None, at + 1
        if branch != VALUE:
            raise ValueError
        return decode_value(data, at + 1)

    return decode


def _record(schema: Mapping[str, Any], named: Named) -> Decode:
    fields = [(each["name"], _compile(each["type"], named)) for each in schema["fields"]]

    def decode(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        value: dict[str, Any] = {}
        for name, read in fields:
            # What most fields are, null or a short string, is read without a call.
            if read is string:
                if (size := data[at]) & NOT_SHORT:
                    value[name], at = string(data, at)
                else:
                    start = at + 1
                    at = start + (size >> 1)
                    value[name] = data[start:at].decode()
            elif read is not nullable_string:
                value[name], at = read(data, at)
            elif not (branch := data[at]):
                value[name] = None
                at += 1
            elif branch == VALUE and not (size := data[at + 1]) & NOT_SHORT:
                start = at + 2
                at = start + (size >> 1)
                value[name] = data[start:at].decode()
            else:
                value[name], at = nullable_string(data, at)
        return value, at

    return decode


def _array(schema: Mapping[str, Any], named: Named) -> Decode:
    decode_item = _compile(schema["items"], named)

    def decode(data: bytes, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []

        def take(at: int) -> int:
            item, at = decode_item(data, at)
            items.append(item)
            return at

        return items, _blocks(data, at, take)

    return decode


def _map(schema: Mapping[str, Any], named: Named) -> Decode:
    decode_item = _compile(schema["values"], named)

    def decode(data: bytes, at: int) -> tuple[dict[str, Any], int]:
        items: dict[str, Any] = {}
        if not data[at]:  # nearly always: no block at all
            return items, at + 1

        def take(at: int) -> int:
            key, at = string(data, at)
            items[key], at = decode_item(data, at)
            return at

        return items, _blocks(data, at, take)

    return decode


def _blocks(data: bytes, at: int, take: Callable[[int], int]) -> int:
    """Read the blocks of an array or a map; `take` reads one item and returns where it ends."""
    count, at = number(data, at)
    while count:
        if count < 0:  # followed by the size of the block, for those who skip it
            count = -count
            _, at = length(data, at)
        for _ in range(count):
            at = take(at)
        count, at = number(data, at)
    return at


_COMPOUND: dict[str, Callable[[Mapping[str, Any], Named], Decode]] = {"record": _record, "array": _array, "map": _map}
