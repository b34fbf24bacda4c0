"""Every change of a schema: what the rules say of it, and what a reader of the other version really reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.avro.codec import Codec, Writer
from bridge.avro.encoder import EncodeError
from bridge.errors import DecodeError
from bridge.registry.loader import read_schemas, schemas_root
from bridge.registry.rules import compatibility
from bridge.registry.schemas import expand
from tests.unit.schema_corpus import values

MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def money(precision: int = 10, scale: int = 2) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def enum(*symbols: str, name: str = "Kind", default: str = "UNKNOWN") -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": ["UNKNOWN", *symbols], "default": default}


def field(name: str, declared: Any, **attributes: object) -> dict[str, Any]:
    return {"name": name, "type": declared, **attributes}


def optional(name: str, declared: Any, **attributes: object) -> dict[str, Any]:
    return field(name, ["null", declared], default=None, **attributes)


def record(*fields: dict[str, Any], name: str = "Thing", **attributes: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "t", "fields": list(fields), **attributes}


ID = field("id", "string")


@dataclass(frozen=True)
class Row:
    """One change, and what comes of it.

    Attributes:
        old: Fields before.
        new: Fields after.
        before: A value of `old`.
        after: A value of `new`.
        backward: What a reader of `new` makes of `before`: a value, or the code it refuses it with.
        forward: What a reader of `old` makes of `after`.
    """

    old: list[dict[str, Any]]
    new: list[dict[str, Any]]
    before: dict[str, Any]
    after: dict[str, Any]
    backward: dict[str, Any] | str
    forward: dict[str, Any] | str


def read(
    value: dict[str, Any], *, written_with: dict[str, Any], by_a_reader_of: dict[str, Any]
) -> dict[str, Any] | str:
    """Send a value through the wire from one age to the other."""
    writer = Codec(schemas={"t.Thing": written_with}, ids={"t.Thing": 1})
    reader = Codec(schemas={"t.Thing": by_a_reader_of}, ids={}, writers=[Writer(1, None, written_with)])
    payload = writer.encode("t.Thing", value)
    try:
        return reader.decode(payload).value
    except DecodeError as exc:
        return exc.code


ALLOWED = {
    "add a field with a default": Row(
        old=[ID],
        new=[ID, optional("note", "string")],
        before={"id": "1"},
        after={"id": "1", "note": "n"},
        backward={"id": "1", "note": None},
        forward={"id": "1"},
    ),
    "remove a field that had a default": Row(
        old=[ID, optional("note", "string")],
        new=[ID],
        before={"id": "1", "note": "n"},
        after={"id": "1"},
        backward={"id": "1"},
        forward={"id": "1", "note": None},
    ),
    "add an enum symbol": Row(
        old=[field("kind", enum("a"))],
        new=[field("kind", enum("a", "b"))],
        before={"kind": "a"},
        after={"kind": "b"},
        backward={"kind": "a"},
        forward={"kind": "UNKNOWN"},
    ),
    "add a symbol to an enum in an array": Row(
        old=[field("kinds", {"type": "array", "items": enum("a")})],
        new=[field("kinds", {"type": "array", "items": enum("a", "b")})],
        before={"kinds": ["a"]},
        after={"kinds": ["a", "b"]},
        backward={"kinds": ["a"]},
        forward={"kinds": ["a", "UNKNOWN"]},
    ),
    "add a field with a default to a record within": Row(
        old=[optional("inner", record(ID, name="Inner"))],
        new=[optional("inner", record(ID, optional("note", "string"), name="Inner"))],
        before={"inner": {"id": "1"}},
        after={"inner": {"id": "1", "note": "n"}},
        backward={"inner": {"id": "1", "note": None}},
        forward={"inner": {"id": "1"}},
    ),
    "raise a PHI class": Row(
        old=[field("id", "string", phi="L"), ID | {"name": "other"}],
        new=[field("id", "string", phi="D"), field("other", "string", phi="L")],
        before={"id": "1", "other": "2"},
        after={"id": "1", "other": "2"},
        backward={"id": "1", "other": "2"},
        forward={"id": "1", "other": "2"},
    ),
}

INNER = record(ID, name="Inner")
# Rule and path of the finding, then the fields before and after.
REFUSED: dict[str, tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "add a field without a default": ("added", "note", [ID], [ID, field("note", "string")]),
    "rename a field by alias": (
        "added",
        "name",
        [field("id", "string", default="")],
        [field("name", "string", default="", aliases=["id"])],
    ),
    "remove a field that had no default": ("removed", "note", [ID, field("note", "string")], [ID]),
    "give a field up for null": ("changed", "id", [ID], [field("id", ["null", "string"])]),
    # Avro promotes each to the other, so nobody notices until somebody calls a method of str.
    "string to bytes": ("changed", "n", [field("n", "string")], [field("n", "bytes")]),
    "items of an array": (
        "changed",
        "n.*",
        [field("n", {"type": "array", "items": "int"})],
        [field("n", {"type": "array", "items": "string"})],
    ),
    # No reader of Avro looks at logical types, scales, units, or another version's default.
    "take a logical type away": ("changed", "at", [field("at", MICROS)], [field("at", "long")]),
    "change a scale": ("changed", "n", [field("n", money(scale=2))], [field("n", money(scale=3))]),
    "change a unit": ("changed", "n", [field("n", "int", unit="mg")], [field("n", "int", unit="g")]),
    "change a default": ("changed", "n", [field("n", "int", default=0)], [field("n", "int", default=1)]),
    "remove an enum symbol": ("changed", "kind", [field("kind", enum("a", "b"))], [field("kind", enum("a"))]),
    "swap enum symbols": ("changed", "kind", [field("kind", enum("a", "b"))], [field("kind", enum("b", "a"))]),
    "change an enum's default": (
        "changed",
        "kind",
        [field("kind", enum("a"))],
        [field("kind", enum("a", default="a"))],
    ),
    "swap fields": ("changed", "", [ID, field("n", "int")], [field("n", "int"), ID]),
    "rename a record within": (
        "changed",
        "inner",
        [field("inner", INNER)],
        [field("inner", record(ID, name="Outer"))],
    ),
    "lower a PHI class": ("phi_lowered", "id", [field("id", "string", phi="D")], [field("id", "string", phi="L")]),
}


@pytest.mark.parametrize("row", ALLOWED.values(), ids=ALLOWED)
def test_an_allowed_change_passes_and_readers_of_both_versions_read_the_other(row: Row) -> None:
    old, new = record(*row.old), record(*row.new)

    assert compatibility(new, [old]) == []
    assert read(row.before, written_with=old, by_a_reader_of=new) == row.backward
    assert read(row.after, written_with=new, by_a_reader_of=old) == row.forward


@pytest.mark.parametrize(("rule", "path", "old", "new"), REFUSED.values(), ids=REFUSED)
def test_a_change_that_is_refused(rule: str, path: str, old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    found = compatibility(record(*new), [record(*old)])

    assert [(finding.record, finding.path, finding.rule) for finding in found] == [("t.Thing", path, rule)]
    assert str(found[0]) == f"t.Thing {path}".rstrip() + f": {found[0].reason} [{rule}]"


def test_a_record_cannot_be_renamed_nor_become_something_else() -> None:
    assert {each.rule for each in compatibility(record(ID, name="Other"), [record(ID)])} == {"changed"}
    assert {each.rule for each in compatibility(record(ID, namespace="u"), [record(ID)])} == {"changed"}
    assert {each.rule for each in compatibility("string", [record(ID)])} == {"changed"}
    assert {each.rule for each in compatibility(record(ID, aliases=["t.Old"]), [record(ID)])} == {"changed"}


def test_every_earlier_version_counts_and_not_only_the_last() -> None:
    """What the second version could follow the third may not: readers of the first are still there."""
    first = record(ID)
    second = record(ID, optional("n", "int"))
    third = record(optional("n", "int"), optional("m", "int"))

    assert [each.rule for each in compatibility(third, [first, second])] == ["removed"]


@pytest.mark.parametrize("declared", ["string", "int"])
def test_the_name_of_a_removed_field_stays_reserved(declared: str) -> None:
    """Records that hold the old meaning are in the log for ever."""
    olds = [record(ID, optional("note", "string")), record(ID)]

    rules = {(each.path, each.rule) for each in compatibility(record(ID, optional("note", declared)), olds)}
    assert ("note", "name_reserved") in rules


def test_a_name_in_a_record_within_is_reserved_too_while_the_record_itself_may_come_back_elsewhere() -> None:
    inner, smaller = record(ID, optional("note", "string"), name="Inner"), record(ID, name="Inner")
    olds = [record(optional("a", inner)), record(optional("a", smaller)), record()]

    assert compatibility(record(optional("b", smaller)), olds) == []
    assert [(each.path, each.rule) for each in compatibility(record(optional("b", inner)), olds)] == [
        ("b.note", "name_reserved")
    ]


def test_a_reason_is_given_once_however_many_versions_give_it() -> None:
    old = record(ID)

    assert len(compatibility(record(ID, field("n", "int")), [old, old, old])) == 1


@pytest.mark.parametrize(
    "schema",
    [
        None,
        1,
        "nothing",
        {},
        {"type": "record"},
        {"type": "record", "name": "A", "fields": [{"name": "b"}]},
        {"type": {}},
    ],
)
def test_what_is_no_schema_is_said_and_not_raised(schema: Any) -> None:
    assert [each.rule for each in compatibility(schema, [record(ID)])] == ["not_avro"]


def test_a_first_version_may_be_anything() -> None:
    assert compatibility(record(ID), []) == []


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_records_of_ours_that_grew_are_read_by_readers_of_both_versions(data: st.DataObject) -> None:
    """The real schemas, with every lawful change at once."""
    old = data.draw(st.sampled_from(sorted(read_schemas(schemas_root()).items())))[1]
    name = f"{old['namespace']}.{old['name']}"
    new = {**old, "doc": "Grown.", "fields": [optional("added", "string", doc="New."), *old["fields"]]}
    value = data.draw(values(expand(new)))
    old_codec = Codec(schemas={name: old}, ids={name: 1}, writers=[Writer(2, None, new)])
    new_codec = Codec(schemas={name: new}, ids={name: 2}, writers=[Writer(1, None, old)])
    known = {key: each for key, each in value.items() if key != "added"}

    assert compatibility(new, [old]) == []
    assert old_codec.decode(new_codec.encode(name, value)).value == known
    assert new_codec.decode(old_codec.encode(name, known)).value == {"added": None, **known}


def test_what_the_newer_writer_knows_the_older_one_refuses_to_write() -> None:
    codec = Codec(schemas={"t.Thing": record(ID)}, ids={"t.Thing": 1})

    with pytest.raises(EncodeError):
        codec.encode("t.Thing", {"id": "1", "note": None})
