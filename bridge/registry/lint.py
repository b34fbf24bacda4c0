"""Say what a new version of a schema would break: FULL_TRANSITIVE, and what Avro's own check does not see.

Only four changes are lawful: a field with a default comes, a field that had one goes (its name is reserved for ever),
an enum grows, docs change. Everything else is refused here, because readers of either age must get the same meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastavro.schema import SchemaParseException, expand_schema  # noqa: TID251 -- a door

Schema = Mapping[str, Any]

# What the walk itself compares, and what may change freely; every other attribute of a type carries meaning
# (logicalType, precision, scale, size, unit, ...) and must stay.
_WALKED = {"type", "name", "fields", "symbols", "items", "values", "default", "aliases"}
_FREE = {"doc"}
_FIELD_WALKED = {"type", "name", "default", "aliases", "phi"}
_PHI_RANKS = {None: 0, "L": 1, "D": 2}  # a class may rise: nobody loses by more care


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason why a schema is refused.

    Attributes:
        record: Full name of the record looked at.
        path: Field in it, array and map items as `*`; empty for the record itself.
        rule: Stable code of the rule.
        reason: One sentence.
    """

    record: str
    path: str
    rule: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.record} {self.path}" if self.path else self.record
        return f"{where}: {self.reason} [{self.rule}]"


def compatibility(new: Any, olds: Sequence[Any]) -> list[Finding]:
    """Return why `new` may not follow `olds`; nothing if it may.

    Args:
        new: A self-contained schema.
        olds: Every earlier version, oldest first.
    """
    try:
        expanded = expand(new)
    except (SchemaParseException, ValueError, KeyError, TypeError, AttributeError):  # fastavro's words for no schema
        return [Finding("", "", "not_avro", "This is no self-contained Avro schema.")]
    record = str(expanded["name"]) if isinstance(expanded, Mapping) and "name" in expanded else ""
    earlier = [expand(old) for old in olds]
    faults = [fault for old in earlier for fault in _type(expanded, old, "")]
    faults += _reserved(expanded, earlier)
    return [Finding(record, *fault) for fault in dict.fromkeys(faults)]


def expand(schema: Any) -> Any:
    """Return the schema with every name replaced by what it names, and every name a full one."""
    return expand_schema(schema)


_Fault = tuple[str, str, str]


def _type(new: Any, old: Any, path: str) -> Iterator[_Fault]:
    if isinstance(new, list) or isinstance(old, list):
        yield from _union(new, old, path)
        return
    new, old = _spelled_out(new), _spelled_out(old)
    if new["type"] != old["type"]:
        yield path, "type_changed", f"The type was {old['type']} and is {new['type']}."
        return
    if new.get("name") != old.get("name"):
        yield path, "renamed", f"The type {old['name']} is now named {new['name']}; readers know it by its name."
        return
    yield from _attributes(new, old, path, walked=_WALKED)
    yield from _aliases(new, path)
    if "fields" in new:
        yield from _fields(new, old, path)
    elif "symbols" in new:
        yield from _symbols(new, old, path)
    for part in ("items", "values"):
        if part in new:
            yield from _type(new[part], old[part], _below(path, "*"))


def _spelled_out(schema: Any) -> Schema:
    return schema if isinstance(schema, Mapping) else {"type": schema}


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _union(new: Any, old: Any, path: str) -> Iterator[_Fault]:
    if not isinstance(new, list) or not isinstance(old, list) or len(new) != len(old):
        yield (
            path,
            "union_changed",
            "The branches of the union are others; a reader of the other age has no such branch.",
        )
        return
    for new_branch, old_branch in zip(new, old, strict=True):
        yield from _type(new_branch, old_branch, path)


def _attributes(new: Schema, old: Schema, path: str, *, walked: set[str]) -> Iterator[_Fault]:
    for name in sorted((new.keys() | old.keys()) - walked - _FREE):
        if new.get(name) != old.get(name):
            yield (
                path,
                "attribute_changed",
                f"{name} was {old.get(name)} and is {new.get(name)}; Avro does not look at it.",
            )


def _aliases(new: Schema, path: str) -> Iterator[_Fault]:
    if new.get("aliases"):
        yield path, "alias", "An alias renames, and readers that do not follow it lose the value."


def _fields(new: Schema, old: Schema, path: str) -> Iterator[_Fault]:
    new_fields = {each["name"]: each for each in new["fields"]}
    old_fields = {each["name"]: each for each in old["fields"]}
    for name, field in new_fields.items():
        if name not in old_fields and "default" not in field:
            reason = "A new field needs a default, or nobody can read the records written before it."
            yield _below(path, name), "added_without_default", reason
        yield from _aliases(field, _below(path, name))
    for name, field in old_fields.items():
        if name not in new_fields:
            if "default" not in field:
                reason = "The removed field had no default, so readers of the earlier version cannot do without it."
                yield _below(path, name), "required_removed", reason
            continue
        yield from _field(new_fields[name], field, _below(path, name))
    if [name for name in new_fields if name in old_fields] != [name for name in old_fields if name in new_fields]:
        yield path, "order_changed", "Fields changed places, which gains nothing and moves every byte."


def _field(new: Schema, old: Schema, path: str) -> Iterator[_Fault]:
    yield from _type(new["type"], old["type"], path)
    yield from _default(new, old, path)
    yield from _attributes(new, old, path, walked=_FIELD_WALKED)
    if _PHI_RANKS.get(new.get("phi"), 0) < _PHI_RANKS.get(old.get("phi"), 0):
        yield path, "phi_lowered", "The field lost its PHI class; what masks it today would show it."


def _default(new: Schema, old: Schema, path: str) -> Iterator[_Fault]:
    if ("default" in new, new.get("default")) != ("default" in old, old.get("default")):
        yield path, "default_changed", "The default is another; readers of the two ages would fill in different values."


def _symbols(new: Schema, old: Schema, path: str) -> Iterator[_Fault]:
    kept = [symbol for symbol in new["symbols"] if symbol in old["symbols"]]
    gone = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
    if gone:
        yield path, "symbol_removed", f"The symbol {gone[0]} is gone; records that hold it lose their meaning."
    elif kept != old["symbols"]:
        yield path, "order_changed", "Symbols changed places, which gains nothing and changes what their numbers mean."
    yield from _default(new, old, path)


def _reserved(new: Any, olds: Sequence[Any]) -> Iterator[_Fault]:
    """Find names that an earlier version used and a later one gave up: old records still hold them."""
    ever: dict[str, set[str]] = {}
    last: dict[str, set[str]] = {}
    for old in olds:
        for _, record in _records(old, ""):
            names = {each["name"] for each in record["fields"]}
            ever.setdefault(record["name"], set()).update(names)
            last[record["name"]] = names
    for path, record in _records(new, ""):
        given_up = ever.get(record["name"], set()) - last.get(record["name"], set())
        for each in record["fields"]:
            if each["name"] in given_up:
                reason = "An earlier version had a field of this name; it stays reserved, take another."
                yield _below(path, each["name"]), "name_reserved", reason


def _records(schema: Any, path: str) -> Iterator[tuple[str, Schema]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _records(branch, path)
    elif isinstance(schema, Mapping):
        for each in schema.get("fields", ()):
            yield from _records(each["type"], _below(path, each["name"]))
        if "fields" in schema:
            yield path, schema
        for part in ("items", "values"):
            if part in schema:
                yield from _records(schema[part], _below(path, "*"))
