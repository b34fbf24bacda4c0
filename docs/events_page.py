"""The page of the events: every type, its fields and an example of it, from the schemas and the samples."""
# ruff: noqa: INP001 - a script next to its pages, not a package

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bridge.avro.schema_ids import RECORDS
from bridge.contract.envelope import EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS
from bridge.kafka.routing import RoutingTable
from bridge.registry.loader import bundled
from docs.examples import examples

Schema = Mapping[str, Any]

_INTRO = """# Events

The event types in Kafka; each is an Avro record. [`asyncapi.yaml`](asyncapi.yaml) has the same for programs,
[`openapi.yaml`](openapi.yaml) the bodies of native DRx, and [readers.md](readers.md) how to read a topic.

- A field whose type ends in `?` may be null.
- *PHI* is the class of health information: `D` identifies a person, `L` is information about a person's health.
- A value outside an enum becomes `UNKNOWN`, and the original is kept in the field with the prefix `raw_`.
- In Avro a timestamp is microseconds since 1970 and a decimal is bytes; the examples show both as strings.
- The persons in the examples are fictitious.
"""
_WIDTH = 116  # of the examples
_SCALARS = {
    "string": "string",
    "boolean": "boolean",
    "int": "int32",
    "long": "int64",
    "timestamp-micros": "timestamp",
    "date": "date",
}


def events_page() -> str:
    """Return the page."""
    schemas = bundled().schemas()
    by_type = {kind: schemas[record] for kind, record in RECORDS.items()}
    named = {each["name"]: each for each in _named(list(by_type.values()))}
    of_all = set(EventRecord.model_fields) | {"extensions"}
    of_prescriptions = set(PrescriptionRecord.model_fields) - of_all
    fields = by_type["prescription.sent"]["fields"]
    routing = RoutingTable()
    parts = [
        _INTRO,
        "## Fields of every event\n",
        _table((field for field in fields if field["name"] in of_all), named),
        "## Fields of every event about a prescription\n",
        _table((field for field in fields if field["name"] in of_prescriptions), named),
    ]
    for kind, schema in by_type.items():
        is_of_one = issubclass(EVENT_MODELS[kind], PrescriptionRecord)
        own = [
            each for each in schema["fields"] if each["name"] not in of_all | (of_prescriptions if is_of_one else set())
        ]
        about = "about a prescription" if is_of_one else "not about a prescription"
        topics = ", or of an account in ".join(f"`{each}`" for each in routing.topics_of_type(kind))
        said = f"{schema['doc']} Record `{RECORDS[kind]}` in {topics}, {about}.\n"
        parts += [f"## {kind}\n", said, _table(own, named), _example(kind)]
    held = {each["name"]: each for each in named.values() if each["type"] == "record" and each not in by_type.values()}
    for name, schema in sorted(held.items()):
        parts += [f"## {name}\n", f"{schema['doc']}\n", _table(schema["fields"], named)]
    return "\n".join(filter(None, parts))


def _named(part: Any) -> Iterator[Schema]:
    """Find the records and enums in a schema; each is defined where it is first named."""
    if isinstance(part, list):
        for each in part:
            yield from _named(each)
    elif isinstance(part, dict):
        if part.get("type") in ("record", "enum"):
            yield part
        for each in part.values():
            yield from _named(each)


def _table(fields: Iterable[Schema], named: Mapping[str, Schema]) -> str:
    rows = [
        f"| `{field['name']}` | {_words(field['type'], named)} | {field.get('phi', '')} | {field['doc']} |"
        for field in fields
    ]
    return "\n".join(["| field | type | PHI | meaning |", "|---|---|---|---|", *rows, ""]) if rows else ""


def _words(schema: Any, named: Mapping[str, Schema]) -> str:
    """Return the type of a field."""
    if isinstance(schema, list):
        (inner,) = (each for each in schema if each != "null")
        return f"{_words(inner, named)}?"
    if isinstance(schema, str):
        return _SCALARS[schema] if schema in _SCALARS else _words(named[schema.rpartition(".")[2]], named)
    kind = schema.get("logicalType", schema["type"])
    if kind == "decimal":
        words = f"decimal({schema['precision']}, {schema['scale']})"
    elif kind == "array":
        words = f"list of {_words(schema['items'], named)}"
    elif kind == "map":
        words = f"map to {_words(schema['values'], named)}"
    elif kind == "enum":
        words = ", ".join(f"`{word}`" for word in schema["symbols"])
    elif kind == "record":
        words = f"[{schema['name']}](#{schema['name'].lower()})"
    else:
        words = _SCALARS[kind]
    return words


def _example(kind: str) -> str:
    example = examples()[kind]
    return "\n".join(
        [
            *_folded("Body that DRx sends", example.body),
            *_folded(
                f"Value in Kafka, under the key <code>{example.key}</code>; null fields left out",
                _said(example.value),
            ),
        ]
    )


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _said(inner) for name, inner in value.items() if inner is not None}
    return [_said(each) for each in value] if isinstance(value, list) else value


def _folded(title: str, document: Any) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", "```json", _json(document), "```", "", "</details>", ""]


def _json(value: Any, indent: int = 0, start: int = 0) -> str:
    """Return JSON with each object or list on one line where it fits; `start` is the column where the text begins."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or start + len(flat) <= _WIDTH:
        return flat
    margin = " " * (indent + 2)
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    inner = value.values() if isinstance(value, dict) else value
    lines = [
        f"{margin}{name}{_json(each, indent + 2, indent + 2 + len(name))}"
        for name, each in zip(names, inner, strict=True)
    ]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{' ' * indent}{closing}"
