"""What the embedded registry takes for a schema, and when two texts are the same schema, on generated schemas."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.registry.loader import bundled
from bridge.registry.lock import Lock
from bridge.registry.schemas import full_form, meaning
from bridge.registry.server import EmbeddedRegistry, RegistryFaultError, parse, unreadable

WORDS = ["type", "name", "namespace", "fields", "items", "values", "symbols", "size", "default", "aliases", "doc"]
KINDS = [
    "null",
    "int",
    "long",
    "double",
    "string",
    "bytes",
    "record",
    "enum",
    "fixed",
    "array",
    "map",
    "error",
    "R",
    "",
]
NUMERIC = ["int", "long", "float", "double", "string", "bytes", "boolean"]

# Anything JSON can say with the words of a schema: mostly nonsense.
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> Any:
    """Draw a valid schema with names from a small set, so that two of them often meet."""
    kinds = (
        [*NUMERIC, "enum", "fixed"] if depth == 0 else [*NUMERIC, "enum", "fixed", "array", "map", "union", "record"]
    )
    kind = draw(st.sampled_from(kinds))
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from("ABC"), min_size=1, unique=True))
        default = {"default": symbols[0]} if draw(st.booleans()) else {}
        return {"type": "enum", "name": "E", "symbols": symbols, **default}
    if kind == "fixed":
        return {"type": "fixed", "name": "F", "size": draw(st.integers(1, 2))}
    if kind == "array":
        return {"type": "array", "items": draw(schemas(depth - 1))}
    if kind == "map":
        return {"type": "map", "values": draw(schemas(depth - 1))}
    if kind == "union":
        return ["null", draw(schemas(0))]
    return kind if kind != "record" else draw(records(depth - 1))


@st.composite
def records(draw: st.DrawFn, depth: int = 1) -> dict[str, Any]:
    """Draw a record; names of nested types are told apart by their place."""
    fields = []
    for name in draw(st.lists(st.sampled_from("abc"), unique=True, max_size=3)):
        default = {"default": None} if draw(st.booleans()) else {}
        kind = ["null", draw(schemas(0))] if default else draw(schemas(depth))
        fields.append({"name": name, "type": renamed(kind, name), **default})
    return {"type": "record", "name": "R", "fields": fields}


def renamed(schema: Any, suffix: str) -> Any:
    """Give every named type a name of its own place: Avro allows each only once."""
    if isinstance(schema, list):
        return [renamed(branch, suffix) for branch in schema]
    if isinstance(schema, dict):
        changed = {
            name: renamed(each, suffix) if name in ("items", "values") else each for name, each in schema.items()
        }
        if "name" in changed:
            changed["name"] += suffix
        if "fields" in changed:
            changed["fields"] = [{**each, "type": renamed(each["type"], suffix)} for each in changed["fields"]]
        return changed
    return schema


@settings(deadline=None)
@given(junk)
def test_anything_is_a_schema_or_a_refusal(document: Any) -> None:
    """Taking it never ends in another error, which a client would take for an outage."""
    text = json.dumps(document)
    registry = EmbeddedRegistry(Lock())
    try:
        registered = registry.register("junk", text)
    except RegistryFaultError as fault:
        assert fault.error_code == 42201  # noqa: PT017 - both ways out are right
        return
    assert unreadable(registered.schema, registered.schema) == []


@settings(deadline=None)
@given(records())
def test_a_form_is_its_own_form_and_a_valid_schema(schema: dict[str, Any]) -> None:
    written = parse(json.dumps(schema, indent=2))
    form = parse(written.form)

    assert form.form == written.form
    assert full_form(json.loads(written.form)) == written.form
    assert unreadable(written, form) == unreadable(form, written) == []


@pytest.mark.parametrize("record", sorted(bundled().schemas()))
def test_our_schemas_are_valid_and_read_themselves(record: str) -> None:
    schema = bundled().schemas()[record]
    parsed = parse(json.dumps(schema))

    assert parsed.form == full_form(schema)
    assert unreadable(parsed, parsed) == []


def test_documentation_is_part_of_the_form_and_no_part_of_the_meaning() -> None:
    schema = copy.deepcopy(dict(bundled().entries[0].schema))
    other = {**schema, "doc": "Otherwise."}

    assert full_form(schema) != full_form(other)
    assert meaning(schema) == meaning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timestamp-micros", "timestamp-millis"),
        ('"precision": ', '"precision": 1'),
        ('"default": null', '"default_": null'),
        ('"UNKNOWN"', '"UNSEEN"'),
    ],
)
def test_what_changes_the_reading_changes_the_meaning(one: str, other: str) -> None:
    texts = [json.dumps(schema) for schema in bundled().schemas().values() if one in json.dumps(schema)]

    assert texts
    assert all(meaning(json.loads(text)) != meaning(json.loads(text.replace(one, other))) for text in texts)
