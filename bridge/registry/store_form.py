"""One spelling for all texts that say the same Avro schema, so that schemas are compared and never their texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_NAMED: Final = ("record", "error", "enum", "fixed")
_INNER: Final = ("items", "values")
# What a reader of bytes never looks at; a registry may drop or reorder it when it writes a schema anew.
_PROSE: Final = frozenset({"doc", "aliases", "order", "phi"})


def full_form(schema: Any) -> str:
    """Spell all that a schema says: names in full, attributes sorted, `{"type": "string"}` as `"string"`."""
    return _spell(_Speller(frozenset()).normal(schema, ""))


def meaning(schema: Any) -> str:
    """Spell what decides how bytes are read: as `full_form` without documentation, aliases and our own attributes.

    Unlike Avro's parsing canonical form it keeps logical types, precision, scale and defaults.
    """
    return _spell(_Speller(_PROSE).normal(schema, ""))


def _spell(normal: Any) -> str:
    return json.dumps(normal, sort_keys=True, separators=(",", ":"))


class _Speller:
    """Walks one schema and remembers the names it has defined."""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._left_out = left_out
        self._known: set[str] = set()

    def normal(self, schema: Any, namespace: str) -> Any:
        if isinstance(schema, str):
            full = _full_name(schema, namespace)
            return full if full in self._known else schema
        if isinstance(schema, list):
            return [self.normal(branch, namespace) for branch in schema]
        if isinstance(schema, Mapping):
            return self._mapping({name: each for name, each in schema.items() if name not in self._left_out}, namespace)
        return schema

    def _mapping(self, schema: dict[str, Any], namespace: str) -> Any:
        kind = schema.get("type")
        if schema.keys() == {"type"}:
            return self.normal(kind, namespace)
        if kind in _NAMED:
            name = _full_name(str(schema.get("name", "")), str(schema.pop("namespace", None) or namespace))
            namespace = name.rpartition(".")[0]
            schema["name"] = name
            self._known.add(name)
        elif not isinstance(kind, str):
            schema["type"] = self.normal(kind, namespace)
        for part in _INNER:
            if part in schema:
                schema[part] = self.normal(schema[part], namespace)
        if isinstance(schema.get("fields"), list):
            schema["fields"] = [self._field(each, namespace) for each in schema["fields"]]
        return schema

    def _field(self, field: Any, namespace: str) -> Any:
        if not isinstance(field, Mapping) or "type" not in field:
            return field
        kept = {name: each for name, each in field.items() if name not in self._left_out}
        return {**kept, "type": self.normal(field["type"], namespace)}


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name
