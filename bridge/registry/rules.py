"""Rules for the evolution of our schemas, checked by `drx-bridge schemas check` before a merge.

FULL_TRANSITIVE, plus changes that Avro's own check misses (logical type, unit, default, reused names). Five changes are
allowed: add a field with a default, remove one that had a default (its name stays reserved), add an enum symbol, change
a doc, raise a PHI class. Everything else is refused, because readers of any two versions must get the same meaning. The
form of a schema, such as a doc for each field, is checked by tests.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.registry.lock import Lock
from bridge.registry.schemas import NotAvroError, Schema, expand

# Attributes compared part by part, and attributes that may change; all others carry meaning (logicalType, precision,
# scale, size, unit, default, ...) and must not change.
_PARTS: Final = frozenset({"fields", "symbols", "items", "values"})
_FIELD_PARTS: Final = frozenset({"type", "phi"})
_FREE: Final = frozenset({"doc"})
_PHI_RANKS: Final = {"L": 1, "D": 2}  # a class may become stricter

_Fault = tuple[str, str, str]
"""Path, rule and reason of a finding."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A reason to refuse a schema; `path` is empty for the record itself, and `rule` is a stable code."""

    record: str
    path: str
    rule: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.record} {self.path}" if self.path else self.record
        return f"{where}: {self.reason} [{self.rule}]"


def findings(schemas: Mapping[str, Schema], lock: Lock) -> list[Violation]:
    """Return every reason to refuse `schemas`, by full name, as the successor of `lock`."""
    found: list[Violation] = []
    for record, schema in schemas.items():
        found += compatibility(schema, [entry.schema for entry in lock.history(record)])
    gone = lock.latest().keys() - schemas.keys()
    reason = "The record is in the lock and has no file; a published record must stay."
    return found + [Violation(record, "", "record_removed", reason) for record in sorted(gone)]


def compatibility(new: Any, olds: Sequence[Any]) -> list[Violation]:
    """Return why `new` may not follow its earlier versions `olds`, oldest first; empty if it may."""
    try:
        expanded = expand(new)
    except NotAvroError:
        return [Violation("", "", "not_avro", "This is not a self-contained Avro schema.")]
    record = str(expanded["name"]) if isinstance(expanded, Mapping) and "name" in expanded else ""
    earlier = [expand(old) for old in olds]
    faults = [fault for old in earlier for fault in _type(expanded, old, "")]
    faults += _reserved(expanded, earlier)
    return [Violation(record, *fault) for fault in dict.fromkeys(faults)]


def _type(new: Any, old: Any, path: str) -> Iterator[_Fault]:
    if isinstance(new, list) or isinstance(old, list):
        if not isinstance(new, list) or not isinstance(old, list) or len(new) != len(old):
            yield path, "changed", "The union has other branches, which a reader of the other version does not have."
            return
        for new_branch, old_branch in zip(new, old, strict=True):
            yield from _type(new_branch, old_branch, path)
        return
    new, old = _spelled_out(new), _spelled_out(old)
    yield from _attributes(new, old, path, walked=_PARTS)
    if (new["type"], new.get("name")) != (old["type"], old.get("name")):
        return
    if "fields" in new:
        yield from _fields(new, old, path)
    if [symbol for symbol in new.get("symbols", ()) if symbol in old["symbols"]] != old.get("symbols", []):
        yield path, "changed", "A symbol was removed or moved; records that contain it lose their meaning."
    for part in ("items", "values"):
        if part in new:
            yield from _type(new[part], old[part], _below(path, "*"))


def _spelled_out(schema: Any) -> Schema:
    return schema if isinstance(schema, Mapping) else {"type": schema}


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _attributes(new: Schema, old: Schema, path: str, *, walked: frozenset[str]) -> Iterator[_Fault]:
    for name in sorted((new.keys() | old.keys()) - walked - _FREE):
        was, now = (each.get(name, "absent") for each in (old, new))
        if was != now:
            yield path, "changed", f"{name} was {was} and is {now}; readers of the two versions would get other values."


def _fields(new: Schema, old: Schema, path: str) -> Iterator[_Fault]:
    new_fields = {each["name"]: each for each in new["fields"]}
    old_fields = {each["name"]: each for each in old["fields"]}
    for name, field in new_fields.items():
        if name not in old_fields and ("default" not in field or field.get("aliases")):
            reason = "A new field needs a default, and no alias; or readers of the other version lose a value."
            yield _below(path, name), "added", reason
    for name, field in old_fields.items():
        below = _below(path, name)
        if name in new_fields:
            yield from _type(new_fields[name]["type"], field["type"], below)
            yield from _attributes(new_fields[name], field, below, walked=_FIELD_PARTS)
            if _phi_rank(new_fields[name]) < _phi_rank(field):
                yield below, "phi_lowered", "The field lost its PHI class; tools that mask it now would show it."
        elif "default" not in field:
            reason = "The removed field had no default, so readers of the earlier version cannot do without it."
            yield below, "removed", reason
    if [name for name in new_fields if name in old_fields] != [name for name in old_fields if name in new_fields]:
        yield path, "changed", "Fields were reordered, which gains nothing and changes the encoding of every record."


def _phi_rank(field: Schema) -> int:
    """Return the rank of a field's PHI class; 0 for any JSON value that is not a class."""
    phi = field.get("phi")
    return _PHI_RANKS.get(phi, 0) if isinstance(phi, str) else 0


def _reserved(new: Any, olds: Sequence[Any]) -> Iterator[_Fault]:
    """Refuse names that an earlier version used and a later one removed: old records still have values for them."""
    ever: dict[str, set[str]] = {}
    last: dict[str, set[str]] = {}
    for old in olds:
        for _, record in records(old):
            names = {each["name"] for each in record["fields"]}
            ever.setdefault(record["name"], set()).update(names)
            last[record["name"]] = names
    for path, record in records(new):
        removed = ever.get(record["name"], set()) - last.get(record["name"], set())
        for each in record["fields"]:
            if each["name"] in removed:
                reason = "An earlier version had a field of this name; it stays reserved, choose another."
                yield _below(path, each["name"]), "name_reserved", reason


def records(schema: Any, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every record in an expanded schema with its path, inner ones first."""
    if isinstance(schema, list):
        for branch in schema:
            yield from records(branch, path)
    elif isinstance(schema, Mapping):
        for each in schema.get("fields", ()):
            yield from records(each["type"], _below(path, each["name"]))
        if "fields" in schema:
            yield path, schema
        for part in ("items", "values"):
            if part in schema:
                yield from records(schema[part], _below(path, "*"))
