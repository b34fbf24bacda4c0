"""Mask health information in decoded records, by the PHI classes of their schemas."""

from collections.abc import Mapping
from typing import Any

from bridge.registry.schemas import Schema, expand

JSON_MASK = "***"
PEOPLE_MASK = "•••"
# docs/contract.md §7: direct identifiers and linked health information; providers (P) and other data (N) are shown.
PHI_CLASSES = frozenset({"D", "L"})
# Empty values are shown: they reveal nothing else.
NOTHING: tuple[object, ...] = (None, {}, [])


class Masker:
    """Replaces values classed as health information by the schemas; masks everything in unknown records."""

    def __init__(self, schemas: Mapping[str, Schema], *, mask: str) -> None:
        """`schemas` are self-contained, by full name; `mask` replaces a value."""
        self._schemas = {name: expand(schema) for name, schema in schemas.items()}
        self._mask = mask

    def mask(self, record: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value with every non-empty D or L field replaced by `mask`.

        Enum values of class L are shown, such as `dispensed`, since the output is useless without them.
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
        """Mask inside a field that is not masked itself but may contain records with masked fields."""
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
    """Return whether a value is a symbol of an enum; another release may have a string under the same name."""
    branches = schema if isinstance(schema, list) else [schema]
    return any(value in each.get("symbols", ()) for each in branches if isinstance(each, Mapping))
