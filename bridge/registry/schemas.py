"""Avro schemas as values: names, written-out forms, comparison by meaning, fingerprints.

A schema is represented by the JSON value of its text. It is *self-contained* if every type it names is defined inside
it, *expanded* if every name is replaced by its definition. Two texts may define the same schema: attributes in another
order, `{"type": "string"}` for `"string"`, a namespace apart or inside the name. So schemas are compared by their
`meaning`, which determines how bytes are read. Documentation, aliases and our own attributes are left out, since a
registry may drop or reorder them. Unlike Avro's parsing canonical form, used by `fingerprint`, it keeps logical types,
precision, scale and defaults.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from fastavro.schema import (  # noqa: TID251 -- this module wraps it
    SchemaParseException,
    expand_schema,
    parse_schema,
    to_parsing_canonical_form,
)
from fastavro.schema import fingerprint as avro_fingerprint  # noqa: TID251 -- this module wraps it

from bridge.errors import BridgeError, ConfigError

Schema = Mapping[str, Any]

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_INNER: Final = ("items", "values")
_NOT_MEANING: Final = frozenset({"doc", "aliases", "order", "phi"})


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A self-contained schema that records may have been written with; its GUID is None if unknown."""

    id: int
    guid: UUID | None
    schema: Schema = field(repr=False)


class NotAvroError(BridgeError):
    """A JSON value is not a self-contained Avro schema."""

    code = "not_avro"


def full_name(schema: Schema) -> str:
    """Return namespace and name of a named type."""
    return f"{schema['namespace']}.{schema['name']}" if "namespace" in schema else str(schema["name"])


def resolve(schema: Schema, named: Mapping[str, Schema]) -> dict[str, Any]:
    """Insert the definition of each named type at its first use; `ConfigError` if one is missing or invalid."""
    try:
        record: dict[str, Any] = _resolve(schema, named, set())
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ConfigError(f"schemas: {full_name(schema)} is not an Avro schema") from None
    return record


def _resolve(schema: Any, named: Mapping[str, Schema], seen: set[str]) -> Any:
    if isinstance(schema, list):
        return [_resolve(branch, named, seen) for branch in schema]
    if isinstance(schema, str):
        if schema in _PRIMITIVES or schema in seen:
            return schema
        if schema not in named:
            raise ConfigError(f"schemas: no type {schema}")
        schema = named[schema]
    resolved = dict(schema)
    if "name" in schema:
        seen.add(full_name(schema))
    for part in _INNER:
        if part in schema:
            resolved[part] = _resolve(schema[part], named, seen)
    if "fields" in schema:
        resolved["fields"] = [{**each, "type": _resolve(each["type"], named, seen)} for each in schema["fields"]]
    return resolved


def expand(schema: Any) -> Any:
    """Replace names by definitions with full names; `NotAvroError` if invalid. Field names are not checked."""
    try:
        return expand_schema(schema)
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError):  # exceptions of fastavro
        raise NotAvroError(NotAvroError.code) from None


def fingerprint(schema: Schema) -> str:
    """Return the SHA-256 of the parsing canonical form (Avro 1.12, "Schema Fingerprints"), lower-case hex."""
    return str(avro_fingerprint(to_parsing_canonical_form(parse_schema(dict(schema))), "SHA-256"))


def digest(schema: Schema) -> str:
    """Return the SHA-256 of a schema, independent of attribute order, in lower-case hex."""
    return hashlib.sha256(_text(schema).encode()).hexdigest()


def meaning(schema: Any) -> str:
    """Return a string that is equal for schemas that read bytes the same way; `NotAvroError` as for `expand`."""
    return _text(_meaning(expand(schema)))


def _meaning(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_meaning(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    parts = ("type", "fields", *_INNER)
    kept = {
        name: _meaning(each) if name in parts else each for name, each in schema.items() if name not in _NOT_MEANING
    }
    return kept["type"] if kept.keys() == {"type"} else kept


def _text(schema: Any) -> str:
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))
