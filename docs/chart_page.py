"""The chart's schema, its table of values and the defaults of consumers, from `chart_values.yaml` and the folders."""
# ruff: noqa: INP001 - a script next to its pages, not a package

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from docs.folders import ROOT, Folder, between, folders

CHART = ROOT / "helm" / "drx-bridge"
NAMED = "<name>"
"""Placeholder in a path for a key that the operator chooses."""
SOURCE: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("chart_values.yaml").read_text(encoding="utf-8"))
_BEGIN = "<!-- Generated from docs/chart_values.yaml by `python docs/generate.py`; do not edit. -->\n"
_END = "<!-- End of what is generated. -->\n"
_HEADER = "| value | default | meaning |\n|---|---|---|\n"
_CONSUMERS = "  # Generated from consumers/*/chart.yaml by `python docs/generate.py`; do not edit.\n"
_CONSUMERS_END = "  # End of what is generated.\n"
_WIDTH = 116


def chart_values(found: Sequence[Folder] | None = None) -> str:
    """Return the chart's defaults with those of the shipped consumers."""
    values = {each.name: each.read("chart.yaml")["values"] for each in (folders() if found is None else found)}
    text = yaml.safe_dump(values, sort_keys=False, width=_WIDTH)
    inside = "".join(f"  {line}\n" for line in text.splitlines())
    return between((CHART / "values.yaml").read_text(encoding="utf-8"), _CONSUMERS, _CONSUMERS_END, inside)


def chart_schema() -> str:
    """Return the JSON Schema of the values."""
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of drx-bridge",
        **_schema(SOURCE["values"], yaml.safe_load(chart_values()), ""),
    }
    return pretty(schema) + "\n"


def chart_readme() -> str:
    """Return the chart's README with the current table of values."""
    rows = "".join(
        f"| `{path}` | {_shown(default)} | {meaning} |\n"
        for path, default, meaning in _rows(SOURCE["values"], yaml.safe_load(chart_values()), "")
        # Values of all consumers are under `consumerDefaults`; Helm passes `global` to every chart.
        if not (path.startswith(f"consumers.{NAMED}.") and _in_defaults(path))
    )
    return between((CHART / "README.md").read_text(encoding="utf-8"), _BEGIN, _END, f"\n{_HEADER}{rows}\n")


def leaves(node: Mapping[str, Any] = SOURCE["values"], before: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every value, as its path and its schema."""
    for name, member in node.items():
        if isinstance(member, list):
            yield f"{before}{name}", _leaf(member)
        else:
            yield from leaves(member, f"{before}{name}.")


def pretty(value: Any, indent: int = 0) -> str:
    """Format JSON with each object on one line if it fits."""
    text = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list) or indent + len(text) <= _WIDTH:
        return text
    pad = " " * (indent + 2)
    if isinstance(value, list):
        inside = [f"{pad}{pretty(each, indent + 2)}" for each in value]
    else:
        inside = [f"{pad}{json.dumps(name)}: {pretty(each, indent + 2)}" for name, each in value.items()]
    begin, end = "[]" if isinstance(value, list) else "{}"
    return f"{begin}\n" + ",\n".join(inside) + f"\n{' ' * indent}{end}"


def _schema(node: Mapping[str, Any], defaults: Any, path: str) -> dict[str, Any]:
    """Return a closed table; a value with a non-empty default must not be removed."""
    if NAMED in node:
        pattern = {"propertyNames": names} if (names := SOURCE["names"].get(path)) else {}
        return {"type": "object", **pattern, "additionalProperties": _schema(node[NAMED], None, f"{path}.{NAMED}")}
    given = defaults if isinstance(defaults, dict) else {}
    required = [name for name in node if name in given and given[name] not in ("", [], {})]
    members = {
        name: _leaf(member)
        if isinstance(member, list)
        else _schema(member, given.get(name), f"{path}.{name}".removeprefix("."))
        for name, member in node.items()
    }
    # Helm passes `global` to every chart, with the values of all.
    closed = {} if path == "global" else {"additionalProperties": False}
    must = {"required": required} if required else {}
    return {"type": "object", **closed, **must, "properties": members}


def _leaf(member: Sequence[Any]) -> dict[str, Any]:
    kind, meaning = member
    if isinstance(kind, list):
        return {"enum": kind, "description": meaning}
    if kind in SOURCE["kinds"]:
        return {**SOURCE["kinds"][kind], "description": meaning}
    least, most = re.fullmatch(r"(\d+)\.\.(\d+)", kind).groups()  # type: ignore[union-attr]  # else it is no kind
    return {"type": "integer", "minimum": int(least), "maximum": int(most), "description": meaning}


def _rows(node: Mapping[str, Any], defaults: Any, before: str) -> Iterator[tuple[str, Any, str]]:
    for name, member in node.items():
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if isinstance(member, list):
            yield f"{before}{name}", default, member[1]
        else:
            yield from _rows(member, default, f"{before}{name}.")


def _in_defaults(path: str) -> bool:
    node: Any = SOURCE["values"]["consumerDefaults"]
    for name in path.split(".")[2:]:
        node = node.get(name) if isinstance(node, dict) else None
    return node is not None


def _shown(default: Any) -> str:
    return "" if default is None or default == "" else f"`{json.dumps(default)}`"
