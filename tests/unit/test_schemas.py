"""The lock matches the schema files, models equal schemas, and changes follow the rules."""

import json
import re
import types
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from bridge.avro.codec import Codec
from bridge.commands.schemas import schemas as schemas_command
from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import Bits, ContractRecord, plain
from bridge.errors import ConfigError
from bridge.registry.loader import bundled, read_lock, read_schemas, schemas_root
from bridge.registry.lock import format_lock, parse_lock, subject
from bridge.registry.rules import compatibility, findings
from bridge.registry.schemas import WriterSchema, digest, expand, fingerprint

SCHEMAS = read_schemas(schemas_root())


def test_the_files_are_lawful_and_locked() -> None:
    lock = read_lock(schemas_root())

    assert (findings(SCHEMAS, lock), lock.drift(SCHEMAS)) == ([], [])


def test_a_locked_schema_needs_no_other(subtests: pytest.Subtests) -> None:
    """Several clients do not resolve references, so the registered form has none."""
    for entry in bundled().entries:
        with subtests.test(entry.record):
            text = json.dumps(entry.schema)
            defined = {f"drx.v1.{name}" for name in re.findall(r'"name": "([A-Z]\w+)"', text)}

            assert set(re.findall(r'"(drx\.v1\.\w+)"', text)) <= defined
            assert entry.subject == subject(entry.record)
            assert (entry.fingerprint, entry.digest) == (fingerprint(entry.schema), digest(entry.schema))


def test_a_changed_schema_gets_a_version_and_an_id_of_its_own_and_the_older_one_stays() -> None:
    lock = bundled()
    changed = {**SCHEMAS, "drx.v1.SystemPing": {**SCHEMAS["drx.v1.SystemPing"], "doc": "Another."}}
    longer = lock.extended(changed)

    newest = longer.entries[-1]
    assert lock.drift(changed) == ["drx.v1.SystemPing"]
    assert longer.entries[:-1] == lock.entries
    assert (newest.version, newest.id) == (2, len(lock.entries) + 1)
    assert [entry.version for entry in longer.history("drx.v1.SystemPing")] == [1, 2]
    assert longer.ids()["drx.v1.SystemPing"] == newest.id
    assert longer.schemas()["drx.v1.SystemPing"]["doc"] == "Another."
    assert lock.extended(SCHEMAS | {"drx.v1.New": newest.schema}).entries[-1].version == 1


def test_a_schema_cannot_become_an_older_version_of_itself() -> None:
    """Registries know one schema once, so the newest would not be the one in use."""
    changed = {**SCHEMAS, "drx.v1.SystemPing": {**SCHEMAS["drx.v1.SystemPing"], "doc": "Another."}}

    with pytest.raises(ConfigError, match=r"drx\.v1\.SystemPing: equals an older version"):
        bundled().extended(changed).extended(SCHEMAS)


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["schemas"][3].update(id=4711),
        lambda document: document["schemas"][3].update(version=2),
        lambda document: document["schemas"][3].update(fingerprint="0" * 64),
        lambda document: document["schemas"][3]["schema"].update(doc="Edited."),
        lambda document: document["schemas"][3].update(subject="elsewhere"),
        lambda document: document["schemas"].reverse(),
        lambda document: document["schemas"].append(document["schemas"][0]),
        lambda document: document["schemas"][3].pop("guid"),
        lambda document: document.clear(),
    ],
)
def test_a_lock_edited_by_hand_is_refused(edit: Any) -> None:
    document = json.loads(format_lock(bundled()))
    edit(document)

    with pytest.raises(ConfigError, match="restore it from version control"):
        parse_lock(document)


def work_tree(root: Path) -> Path:
    for path in [*schemas_root().glob("*/*.avsc"), *schemas_root().glob("*.json")]:
        copy = root / path.relative_to(schemas_root())
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return root


def run(*arguments: str | Path) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(schemas_command, [str(each) for each in arguments])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_check_and_lock_refuse_an_unlawful_change_and_say_which_field_and_why(tmp_path: Path) -> None:
    root = work_tree(tmp_path)
    locked = (root / "schemas.lock.json").read_bytes()
    file = root / "common" / "Medication.avsc"
    lawful = file.read_text()
    file.write_text(lawful.replace('"scale": 3', '"scale": 2', 1))

    code, out, _ = run("check", "--root", root, "--json")
    first = json.loads(out)["findings"][0]
    assert (code, (first["path"], first["rule"])) == (1, ("medication.quantity", "changed"))
    code, _, told = run("check", "--lock", "--root", root)
    assert code == 1
    assert "drx.v1.PrescriptionSent medication.quantity: scale was 3 and is 2" in told
    assert (root / "schemas.lock.json").read_bytes() == locked
    file.write_text(lawful.replace('"doc": "', '"doc": "Newly ', 1))
    assert "schemas check --lock" in run("check", "--root", root)[2]
    assert "drx.v1.PrescriptionSent: version" in run("check", "--lock", "--root", root)[2]
    assert run("check", "--root", root)[0] == 0


MICROS = {"type": "long", "logicalType": "timestamp-micros"}


def money(scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": scale}


def enum(*symbols: str, default: str = "UNKNOWN") -> dict[str, Any]:
    return {"type": "enum", "name": "Kind", "symbols": ["UNKNOWN", *symbols], "default": default}


def field(name: str, declared: Any, **attributes: object) -> dict[str, Any]:
    return {"name": name, "type": declared, **attributes}


def optional(name: str, declared: Any, **attributes: object) -> dict[str, Any]:
    return field(name, ["null", declared], default=None, **attributes)


def record(*fields: dict[str, Any], name: str = "Thing", **attributes: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "t", "fields": list(fields), **attributes}


NO_DEFAULT = "no default"
PHI_RANKS = {None: 0, "L": 1, "D": 2}


def malformed(schema: Any, rank: int = 0) -> Iterator[str]:
    """Yield why a type cannot grow, or hides what it holds; `rank` is the PHI class of the field around it."""
    schema = schema if isinstance(schema, dict) else {"type": schema}
    if "name" in schema and not schema.get("doc"):
        yield f"{schema['name']} has no doc"
    if schema["type"] == "enum" and (schema["symbols"][0], schema.get("default")) != ("UNKNOWN", "UNKNOWN"):
        yield f"{schema['name']} does not start with UNKNOWN, or has another default"
    fields = schema.get("fields", [])
    for each, following in zip(fields, [*fields[1:], {}], strict=False):
        bare = each["type"][-1] if isinstance(each["type"], list) else each["type"]
        own = PHI_RANKS.get(each.get("phi"), -1)
        if own < rank:
            yield f"{each['name']} has another PHI class than D or L, or one less strict than its record"
        if not each.get("doc"):
            yield f"{each['name']} has no doc"
        if isinstance(each["type"], list) and [each["type"], each.get("default")] != [["null", bare], None]:
            yield f"{each['name']} is nullable in another way"
        listed = isinstance(bare, dict) and bare["type"] == "array"
        of = bare["items"] if listed else bare
        # An event of another environment is parked before it becomes a record.
        if isinstance(of, dict) and of["type"] == "enum" and of["name"] != "drx.v1.Environment":
            kept: Any = {"type": "array", "items": "string"} if listed else ["null", "string"]
            found = [following.get("name"), following.get("type"), following.get("default", NO_DEFAULT)]
            if [*found, following.get("phi")] != [f"raw_{each['name']}", kept, [] if listed else None, each.get("phi")]:
                yield f"{each['name']} is not followed by the field for unknown values"
        yield from malformed(bare, max(own, rank))
    for part in {"items", "values"} & schema.keys():
        yield from malformed(schema[part], rank)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_documented_and_can_grow(name: str) -> None:
    assert list(malformed(expand(SCHEMAS[name]))) == []


@pytest.mark.parametrize(
    "broken",
    [
        field("f", "string"),
        field("f", {"type": "map", "values": record()}, doc="d"),
        field("f", ["string", "null"], doc="d", default=""),
        field("f", enum("a", default="a"), doc="d"),
        field("f", {**enum("a"), "doc": "d"}, doc="d"),
        field("f", "string", doc="d", phi="X"),
        field("f", record(field("g", "string", doc="d", phi="L"), doc="d"), doc="d", phi="D"),
    ],
)
def test_a_schema_that_is_not_would_be_found(broken: dict[str, Any]) -> None:
    assert list(malformed(record(broken, doc="d")))


PLAIN = {
    str: "string",
    bool: "boolean",
    date: {"type": "int", "logicalType": "date"},
    AwareDatetime: MICROS,
    dict[str, str]: {"type": "map", "values": "string"},
    Annotated[int, Bits(32)]: "int",
    Annotated[int, Bits(64)]: "long",
}


def model_fields(model: type[ContractRecord]) -> list[dict[str, Any]]:
    """Return the fields of a model in the words of a schema."""
    return [
        {"name": name, "type": field_type(info), "default": default(info), "phi": phi(info)}
        for name, info in model.model_fields.items()
    ]


def default(info: FieldInfo) -> Any:
    return NO_DEFAULT if info.is_required() else info.get_default(call_default_factory=True, validated_data={})


def phi(info: FieldInfo) -> Any:
    assert not callable(info.json_schema_extra)
    return (info.json_schema_extra or {}).get("phi")


def field_type(info: FieldInfo) -> Any:
    found = avro_type(plain(info))
    return ["null", found] if types.NoneType in get_args(info.annotation) else found


def avro_type(kind: Any) -> Any:
    arguments = get_args(kind)
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) is Literal:
        return {"enum": set(arguments)}
    if get_origin(kind) is list:
        return {"type": "array", "items": avro_type(arguments[0])}
    if get_origin(kind) is Annotated:
        inner, digits = arguments
        if inner is str:  # Avro has no length
            return PLAIN[str]
        assert inner is Decimal
        return {"type": "bytes", "logicalType": "decimal", "precision": digits.precision, "scale": digits.scale}
    return {"record": kind.__name__, "fields": model_fields(kind)}


def schema_fields(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": field["name"],
            "type": schema_type(field["type"]),
            "default": field.get("default", NO_DEFAULT),
            "phi": field.get("phi"),
        }
        for field in record["fields"]
    ]


def schema_type(schema: Any) -> Any:
    """Return the type without docs and without the order of symbols, which only the wire needs."""
    if isinstance(schema, list):
        return [schema_type(branch) for branch in schema]
    if isinstance(schema, str):
        return schema
    match schema["type"]:
        case "record":
            return {"record": schema["name"].removeprefix("drx.v1."), "fields": schema_fields(schema)}
        case "enum":
            return {"enum": set(schema["symbols"])}
        case "array":
            return {"type": "array", "items": schema_type(schema["items"])}
    return schema


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_a_model_has_the_fields_of_its_record(event_type: str) -> None:
    """Name, order, type, size, nullability, default and PHI class, down to the last record within."""
    model = EVENT_MODELS[event_type]

    assert model_fields(model) == schema_fields(expand(SCHEMAS[f"drx.v1.{model.__name__}"]))


ID = field("id", "string")
NOTE = optional("note", "string")
KIND_A, KIND_B = field("kind", enum("a")), field("kind", enum("a", "b"))
PHI_L, PHI_D = field("id", "string", phi="L"), field("id", "string", phi="D")


def kinds(*symbols: str) -> dict[str, Any]:
    return field("kinds", {"type": "array", "items": enum(*symbols)})


def inner(*fields: dict[str, Any]) -> dict[str, Any]:
    return optional("inner", record(*fields, name="Inner"))


# Fields before and after, a value written after the change, and what a reader from before it makes of that.
ALLOWED: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "add a field with a default": ([ID], [ID, NOTE], {"id": "1", "note": "n"}, {"id": "1"}),
    "remove a field that had a default": ([ID, NOTE], [ID], {"id": "1"}, {"id": "1", "note": None}),
    "add an enum symbol": ([KIND_A], [KIND_B], {"kind": "b"}, {"kind": "UNKNOWN"}),
    "add a symbol to an enum in an array": (
        *([kinds("a")], [kinds("a", "b")], {"kinds": ["a", "b"]}, {"kinds": ["a", "UNKNOWN"]}),
    ),
    "add a field with a default to a record within": (
        *([inner(ID)], [inner(ID, NOTE)], {"inner": {"id": "1", "note": "n"}}, {"inner": {"id": "1"}}),
    ),
    "raise a PHI class": ([PHI_L], [PHI_D], {"id": "1"}, {"id": "1"}),
}

INNER = record(ID, name="Inner")
TEXTS = {"type": "array", "items": "string"}


def n(declared: Any, **attributes: object) -> list[dict[str, Any]]:
    return [field("n", declared, **attributes)]


# Rule and path of the finding, then the fields before and after.
REFUSED: dict[str, tuple[str, str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "add a field without a default": ("added", "note", [ID], [ID, field("note", "string")]),
    "rename a field by alias": ("added", "n", [field("id", "int", default=0)], n("int", default=0, aliases=["id"])),
    "remove a field that had no default": ("removed", "note", [ID, field("note", "string")], [ID]),
    "give a field up for null": ("changed", "id", [ID], [field("id", ["null", "string"])]),
    # Avro promotes each to the other, so nobody notices until somebody calls a method of str.
    "string to bytes": ("changed", "n", n("string"), n("bytes")),
    "items of an array": ("changed", "n.*", n(TEXTS | {"items": "int"}), n(TEXTS)),
    # No reader of Avro looks at logical types, scales, units, or another version's default.
    "take a logical type away": ("changed", "at", [field("at", MICROS)], [field("at", "long")]),
    "change a scale": ("changed", "n", n(money(2)), n(money(3))),
    "change a unit": ("changed", "n", n("int", unit="mg"), n("int", unit="g")),
    "change a default": ("changed", "n", n("int", default=0), n("int", default=1)),
    "remove an enum symbol": ("changed", "kind", [KIND_B], [KIND_A]),
    "swap enum symbols": ("changed", "kind", [KIND_B], [field("kind", enum("b", "a"))]),
    "change an enum's default": ("changed", "kind", [KIND_A], [field("kind", enum("a", default="a"))]),
    "swap fields": ("changed", "", [ID, field("n", "int")], [field("n", "int"), ID]),
    "rename a record within": ("changed", "inner", [field("inner", INNER)], [field("inner", record(ID, name="Outer"))]),
    "lower a PHI class": ("phi_lowered", "id", [field("id", "string", phi="D")], [field("id", "string", phi="L")]),
}


@pytest.mark.parametrize(("old", "new", "after", "read"), ALLOWED.values(), ids=ALLOWED)
def test_an_allowed_change_passes_and_a_reader_of_the_former_version_reads_the_new_one(
    old: list[dict[str, Any]], new: list[dict[str, Any]], after: dict[str, Any], read: dict[str, Any]
) -> None:
    writer = Codec(schemas={"t.Thing": record(*new)}, ids={"t.Thing": 1})
    reader = Codec(schemas={"t.Thing": record(*old)}, ids={}, writers=[WriterSchema(1, None, record(*new))])

    assert compatibility(record(*new), [record(*old)]) == []
    assert reader.decode(writer.encode("t.Thing", after)).value == read


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
