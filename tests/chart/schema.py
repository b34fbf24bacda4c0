"""The chart's schema of values, walked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from docs.chart_page import resolved
from tests.chart.rendering import CHART

Schema = Mapping[str, Any]
SCHEMA: Schema = json.loads((CHART / "values.schema.json").read_text())
DEFINITIONS: Mapping[str, Schema] = SCHEMA["definitions"]
NAMED = "<name>"
"""Stands in a path for a key that the operator chooses, and for any element of a list."""


def members(schema: Schema = SCHEMA, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every value that may be given, tables included, as its path and what it may be."""
    schema = resolved(schema, DEFINITIONS)
    if path:
        yield path, schema
    before = f"{path}." if path else ""
    for name, member in schema.get("properties", {}).items():
        yield from members(member, f"{before}{name}")
    for inner in ("additionalProperties", "items"):
        if isinstance(schema.get(inner), dict):
            yield from members(schema[inner], f"{before}{NAMED}")


def is_refused(schema: Schema) -> bool:
    """Tell whether a value is declared only to be refused with a better message than the schema has."""
    return schema.get("$comment") == "refused"
