"""What every schema of ours looks like, whatever its history: documented, nullable one way, enums that can grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.registry.lint import Finding, expand

Schema = Mapping[str, Any]
_Fault = tuple[str, str, str]

UNKNOWN = "UNKNOWN"

# Without `raw_` sibling: an event of another environment than its source's is parked before it becomes a record.
_CLOSED_ENUMS = {"drx.v1.Environment"}

_TYPES = {
    ("string", None),
    ("bytes", None),
    ("boolean", None),
    ("int", None),
    ("long", None),
    ("long", "timestamp-micros"),
    ("int", "date"),
    ("bytes", "decimal"),
    ("record", None),
    ("enum", None),
    ("array", None),
    ("map", None),
}
_NULLABLE_STRING: Schema = {"type": ["null", "string"], "default": None}
_PHI_RANKS = {None: 0, "L": 1, "D": 2}


def house_findings(schema: Schema) -> list[Finding]:
    """Return where a self-contained schema breaks a house rule.

    Args:
        schema: A record as `lock.resolve` returns it.
    """
    expanded = expand(schema)
    return [Finding(expanded["name"], *fault) for fault in _type(expanded, "", 0)]


def _type(schema: Any, path: str, rank: int) -> Iterator[_Fault]:
    if not isinstance(schema, Mapping):
        schema = {"type": schema}
    kind, logical = schema["type"], schema.get("logicalType")
    if (kind, logical) not in _TYPES:
        yield path, "type_not_used", f"{kind} {logical or ''} is not among the types of the contract."
    if logical == "decimal" and not ("precision" in schema and "scale" in schema):
        yield path, "decimal_size", "A decimal states precision and scale."
    if "name" in schema and not schema.get("doc"):
        yield path, "doc_missing", f"The type {schema['name']} has no doc."
    if kind == "enum" and not (schema["symbols"][0] == UNKNOWN == schema.get("default")):
        yield path, "enum_unknown", "An enum starts with UNKNOWN and has it as default, or it can never grow."
    if kind == "record":
        yield from _fields(schema, path, rank)
    for part in ("items", "values"):
        if part in schema:
            yield from _type(schema[part], f"{path}.*", rank)


def _fields(schema: Schema, path: str, rank: int) -> Iterator[_Fault]:
    fields = schema["fields"]
    for place, field in enumerate(fields):
        where = f"{path}.{field['name']}" if path else field["name"]
        follower = fields[place + 1] if place + 1 < len(fields) else {}
        own = _PHI_RANKS.get(field.get("phi"), -1)
        if own < rank:
            yield where, "phi_class", "The class is D or L, and inside a field that has one at least as strict."
        if not field.get("doc"):
            yield where, "doc_missing", "The field has no doc."
        yield from _union(field, where)
        yield from _raw(field, follower, where)
        yield from _type(_bare(field["type"]), where, max(own, rank))


def _union(field: Schema, where: str) -> Iterator[_Fault]:
    declared = field["type"]
    if not isinstance(declared, list):
        return
    if len(declared) != 2 or declared[0] != "null" or "default" not in field or field["default"] is not None:  # noqa: PLR2004 -- null and one type
        yield where, "nullable", "A nullable field is null or one type, in this order, and defaults to null."


def _raw(field: Schema, follower: Schema, where: str) -> Iterator[_Fault]:
    """Demand, after an enum, the place where words that are not in it are kept."""
    bare = _bare(field["type"])
    listed = isinstance(bare, Mapping) and bare["type"] == "array"
    enum = bare["items"] if listed else bare
    if not isinstance(enum, Mapping) or enum["type"] != "enum" or enum["name"] in _CLOSED_ENUMS:
        return
    kept: dict[str, Any] = {"name": f"raw_{field['name']}", "phi": field.get("phi")}
    kept |= {"type": {"type": "array", "items": "string"}, "default": []} if listed else _NULLABLE_STRING
    if any(follower.get(name, "absent" if name == "default" else None) != wanted for name, wanted in kept.items()):
        reason = f"The enum is not followed by {kept['name']} with its PHI class, where other words are kept."
        yield where, "raw_missing", reason


def _bare(declared: Any) -> Any:
    return declared[-1] if isinstance(declared, list) else declared
