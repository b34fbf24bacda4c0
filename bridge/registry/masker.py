"""Masks health information in decoded records, by the classes in their schemas."""

from collections.abc import Mapping
from typing import Any

from bridge.registry.schemas import Schema, expand

JSON_MASK = "***"
PEOPLE_MASK = "•••"
# docs/contract.md §7: direct identifiers and linked health information; providers (P) and the rest (N) are no secret.
PHI_CLASSES = frozenset({"D", "L"})
# Nothing that could be a secret; that it is empty may be known.
NOTHING: tuple[object, ...] = (None, {}, [])


class Masker:
    """Replaces what the schemas class as health information; fails closed on a record it does not know."""

    def __init__(self, schemas: Mapping[str, Schema], *, mask: str) -> None:
        """Keep the self-contained `schemas` by full name and the `mask` that stands for a value."""
        self._schemas = {name: expand(schema) for name, schema in schemas.items()}
        self._mask = mask

    def mask(self, record: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value with `mask` for each D or L field that holds something; what is empty stays so.

        Of class L, words of a closed list are shown, such as `dispensed`: without them nobody sees what happened.
        """
        schema = self._schemas.get(record)
        return dict.fromkeys(value, self._mask) if schema is None else self._record(schema, value)

    def _record(self, schema: Schema, value: Mapping[str, Any]) -> dict[str, Any]:
        fields = {each["name"]: each for each in schema["fields"]}
        return {
            name: self._field(fields[name], inner) if name in fields else self._mask for name, inner in value.items()
        }

    def _field(self, declared: Schema, value: Any) -> Any:
        if value in NOTHING:
            return value
        if declared.get("phi") not in PHI_CLASSES:
            return self._any(declared["type"], value)
        return value if declared["phi"] == "L" and _is_word(declared["type"], value) else self._mask

    def _any(self, schema: Any, value: Any) -> Any:
        """Mask inside a field that is no secret itself but may hold records with fields that are."""
        if not isinstance(value, Mapping | list):
            return value
        for branch in schema if isinstance(schema, list) else [schema]:
            inner = branch if isinstance(branch, Mapping) else {}
            if isinstance(value, list) and "items" in inner:
                return [self._any(inner["items"], item) for item in value]
            if isinstance(value, Mapping) and "fields" in inner:
                return self._record(inner, value)
            if isinstance(value, Mapping) and "values" in inner:
                return {name: self._any(inner["values"], item) for name, item in value.items()}
        return self._mask


def _is_word(schema: Any, value: Any) -> bool:
    """Whether a value is a symbol of an enum; a record of another release may hold a text under the same name."""
    branches = schema if isinstance(schema, list) else [schema]
    return any(value in each.get("symbols", ()) for each in branches if isinstance(each, Mapping))
