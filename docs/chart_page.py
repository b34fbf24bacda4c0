"""The table of the chart's values, from its defaults and its schema."""
# ruff: noqa: INP001 - a script beside its pages, no package

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

CHART = Path(__file__).parents[1] / "helm" / "drx-bridge"
_BEGIN = "<!-- Generated from values.yaml and values.schema.json by `python docs/generate.py`; do not edit. -->\n"
_END = "<!-- End of what is generated. -->\n"
_HEADER = "| value | default | meaning |\n|---|---|---|\n"
Schema = Mapping[str, Any]


def chart_readme() -> str:
    """Return the chart's README with the table that its values have now."""
    text = (CHART / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{_table()}\n{_END}{after}"


def _table() -> str:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    common = re.compile(
        "|".join(rf"\| `consumers\.[\w<>]+\.{name}[`.][^|]* \|  \|" for name in defaults["consumerDefaults"])
    )
    rows = _rows(schema, defaults, schema["definitions"], path="")
    # A consumer's value that is also in `consumerDefaults` has its row there, unless its default differs; the
    # image of any consumer has it under `consumers.<name>`.
    own_image = re.compile(r"\| `consumers\.\w+\.image\.")
    return _HEADER + "".join(row for row in rows if not (common.match(row) or own_image.match(row)))


def _rows(schema: Schema, defaults: Any, definitions: Mapping[str, Schema], *, path: str) -> Iterator[str]:
    for name, given in schema["properties"].items():
        member = resolved(given, definitions)
        where = f"{path}{name}"
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if "properties" in member:
            yield from _rows(member, default, definitions, path=f"{where}.")
            if isinstance(named := member.get("additionalProperties"), dict):
                yield from _rows(resolved(named, definitions), None, definitions, path=f"{where}.<name>.")
            continue
        if where == "global" or member.get("$comment") == "refused":
            continue
        yield f"| `{where}` | {_shown(default)} | {member['description']} |\n"
        each = resolved(member.get("additionalProperties") or {}, definitions)
        if "properties" in each:
            yield from _rows(each, None, definitions, path=f"{where}.<name>.")


def resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Follow a reference; what stands beside it wins."""
    if "allOf" in schema:
        (inner,) = schema["allOf"]
        return {**resolved(inner, definitions), **{name: schema[name] for name in schema if name != "allOf"}}
    if "$ref" in schema:
        return resolved(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    return schema


def _shown(default: Any) -> str:
    return "" if default is None or default == "" else f"`{json.dumps(default)}`"
