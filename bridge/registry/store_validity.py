"""Is this one self-contained Avro schema? Stricter than the libraries, whose leniency would become another's error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE: Final = "the schema"


def schema_faults(schema: Any) -> Iterator[str]:
    """Say what is wrong, each with the path of its field; nothing for a valid schema.

    Source: Avro 1.12, "Schema Declaration", "Names".
    """
    return _Validity().faults(schema, "", "")


class _Validity:
    """Walks one schema and remembers the names it has defined."""

    def __init__(self) -> None:
        self._defined: dict[str, Any] = {}

    def faults(self, schema: Any, namespace: str, path: str) -> Iterator[str]:
        if isinstance(schema, str):
            if schema not in PRIMITIVES and self._resolve(schema, namespace) is None:
                yield f"{path or _WHOLE}: no such type"
        elif isinstance(schema, list):
            yield from self._union(schema, namespace, path)
        elif isinstance(schema, Mapping):
            yield from self._typed(schema, namespace, path)
        else:
            yield f"{path or _WHOLE}: neither a name, an object nor a list"

    def _union(self, branches: list[Any], namespace: str, path: str) -> Iterator[str]:
        if any(isinstance(branch, list) for branch in branches):
            yield f"{path or _WHOLE}: a union directly inside a union"
            return
        for branch in branches:
            yield from self.faults(branch, namespace, path)
        kinds = [_kind(branch) for branch in branches]
        if len(set(kinds)) != len(kinds):
            yield f"{path or _WHOLE}: two branches of the union are the same type"

    def _typed(self, schema: Mapping[str, Any], namespace: str, path: str) -> Iterator[str]:
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            yield from self._named(schema, str(kind), namespace, path)
        elif kind == "array":
            yield from self.faults(schema.get("items"), namespace, _below(path, "*"))
        elif kind == "map":
            yield from self.faults(schema.get("values"), namespace, _below(path, "*"))
        else:
            yield from self.faults(kind, namespace, path)

    def _named(self, schema: Mapping[str, Any], kind: str, namespace: str, path: str) -> Iterator[str]:
        name, own = schema.get("name"), schema.get("namespace")
        parts = f"{own or namespace}.{name}" if isinstance(name, str) and "." not in name else name
        full = str(parts).removeprefix(".")
        if not isinstance(name, str) or not all(_NAME.fullmatch(part) for part in full.split(".")):
            yield f"{path or _WHOLE}: no valid name"
            return
        if full in self._defined or full in PRIMITIVES:
            yield f"{path or _WHOLE}: the name is defined twice"
            return
        self._defined[full] = schema
        yield from _aliases(schema, path)
        if kind in ("record", "error"):
            yield from self._fields(schema.get("fields"), full.rpartition(".")[0], path)
        elif kind == "enum":
            yield from _enum(schema, path)
        elif not (isinstance(schema.get("size"), int) and not isinstance(schema["size"], bool) and schema["size"] >= 0):
            yield f"{path or _WHOLE}: no valid size"

    def _fields(self, fields: Any, namespace: str, path: str) -> Iterator[str]:
        if not isinstance(fields, list) or not all(isinstance(field, Mapping) for field in fields):
            yield f"{path or _WHOLE}: a record needs a list of fields"
            return
        seen: set[str] = set()
        for field in fields:
            name = field.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name) or name in seen:
                yield f"{path or _WHOLE}: a field without a valid name of its own"
                continue
            seen.add(name)
            yield from _aliases(field, _below(path, name))
            yield from self.faults(field.get("type"), namespace, _below(path, name))

    def _resolve(self, name: str, namespace: str) -> Any:
        return self._defined.get(f"{namespace}.{name}" if namespace and "." not in name else name)


def _enum(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(each, str) and _NAME.fullmatch(each) for each in symbols):
        yield f"{path or _WHOLE}: an enum needs a list of valid symbols"
    elif len(set(symbols)) != len(symbols):
        yield f"{path or _WHOLE}: a symbol stands twice"
    elif "default" in schema and schema["default"] not in symbols:
        yield f"{path or _WHOLE}: the default is none of the symbols"


def _aliases(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    aliases = schema.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        yield f"{path or _WHOLE}: aliases are a list of names"


def _kind(schema: Any) -> str:
    if isinstance(schema, Mapping):
        return str(schema.get("name", schema.get("type")))
    return str(schema)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
