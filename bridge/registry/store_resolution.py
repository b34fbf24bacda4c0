"""Avro's schema resolution, decided without data: can a reader's schema read everything a writer's schema wrote?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from bridge.registry.store_form import full_form

# Writer type -> reader types it is promoted to (Avro 1.12, "Schema Resolution").
_PROMOTED: Final = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_NAMED: Final = ("record", "error", "enum", "fixed")
_FIELDED: Final = ("record", "error")
_INNER: Final = {"array": "items", "map": "values"}


def unreadable(reader: Any, writer: Any) -> list[str]:
    """Say what of the writer's the reader cannot read, each with the path of its field; empty when it reads all.

    Source: Avro 1.12, "Schema Resolution".
    """
    reader, writer = json.loads(full_form(reader)), json.loads(full_form(writer))
    return list(_Resolution(_definitions(reader), _definitions(writer)).faults(reader, writer, ""))


class _Resolution:
    """One walk over two schemas; remembers pairs of records it is inside of, since records may contain themselves."""

    def __init__(self, read: Mapping[str, Any], written: Mapping[str, Any]) -> None:
        self._read = read
        self._written = written
        self._pairs: set[tuple[str, str]] = set()

    def faults(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        reader, writer = _named(reader, self._read), _named(writer, self._written)
        if isinstance(writer, list):
            for branch in writer:
                yield from self.faults(reader, branch, path)
        elif isinstance(reader, list):
            if all(any(True for _ in self.faults(branch, writer, path)) for branch in reader):
                yield f"{path or 'the schema'}: no branch of the union reads {_kind(writer)}"
        elif _kind(reader) != _kind(writer):
            if _kind(reader) not in _PROMOTED.get(_kind(writer), ()):
                yield f"{path or 'the schema'}: {_kind(writer)} is not read as {_kind(reader)}"
        else:
            yield from self._same_kind(reader, writer, path)

    def _same_kind(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        kind = _kind(reader)
        if kind in _NAMED and not _same_name(reader, writer):
            yield f"{path or 'the schema'}: {writer['name']} is not read as {reader['name']}"
        elif kind in ("record", "error"):
            yield from self._record(reader, writer, path)
        elif kind == "enum":
            gone = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
            if gone and "default" not in reader:
                yield f"{path or 'the schema'}: the symbol {gone[0]} is not known and the enum has no default"
        elif kind == "fixed" and reader["size"] != writer["size"]:
            yield f"{path or 'the schema'}: the size is {writer['size']} and not {reader['size']}"
        elif kind in ("array", "map"):
            part = "items" if kind == "array" else "values"
            yield from self.faults(reader[part], writer[part], f"{path}.*" if path else "*")

    def _record(self, reader: Any, writer: Any, path: str) -> Iterator[str]:
        pair = (reader["name"], writer["name"])
        if pair in self._pairs:
            return
        self._pairs.add(pair)
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            below = f"{path}.{field['name']}" if path else str(field["name"])
            names = [name for name in (field["name"], *field.get("aliases", ())) if name in written]
            if names:
                yield from self.faults(field["type"], written[names[0]]["type"], below)
            elif "default" not in field:
                yield f"{below}: not written and without a default"
        self._pairs.remove(pair)


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, Mapping) else schema)


def _named(schema: Any, definitions: Mapping[str, Any]) -> Any:
    return definitions.get(schema, schema) if isinstance(schema, str) else schema


def _same_name(reader: Any, writer: Any) -> bool:
    """Compare without the namespace, as the specification does; a reader's alias will do."""
    names = {str(name).rpartition(".")[2] for name in (reader["name"], *reader.get("aliases", ()))}
    return str(writer["name"]).rpartition(".")[2] in names


def _definitions(schema: Any) -> dict[str, Any]:
    """Collect the named types of a schema in full form, by full name."""
    found: dict[str, Any] = {}
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, Mapping):
            kind = part["type"]
            if not isinstance(kind, str):
                left.append(kind)
                continue
            # Under any other type these words are attributes of the author's own, and may hold anything.
            if kind in _NAMED:
                found[part["name"]] = part
            if kind in _FIELDED:
                left += [field["type"] for field in part["fields"]]
            if kind in _INNER:
                left.append(part[_INNER[kind]])
    return found
