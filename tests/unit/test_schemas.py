"""The schema files say what the catalogue says, all of it and nothing else, and the lock says what the files say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.commands.schemas import schemas as schemas_command
from bridge.errors import ConfigError
from bridge.registry.loader import bundled, read_lock, read_schemas, schemas_root
from bridge.registry.lock import default_topic, format_lock, parse_lock
from bridge.registry.rules import findings, house_findings
from bridge.registry.schemas import digest, expand, fingerprint

CATALOGUE = json.loads((Path(__file__).parents[1] / "data" / "catalogue.json").read_text())
EVENTS = {event["type"]: event for event in CATALOGUE["events"]}
SCHEMAS = read_schemas(schemas_root())

TIMESTAMP = {"type": "long", "logicalType": "timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}

# Name, type, PHI class and whether null is allowed, in this order.
LEADING = [
    ("event_id", "string", None, False),
    ("event_type", "string", None, False),
    ("contract_version", "string", None, False),
    ("occurred_at", TIMESTAMP, None, False),
    ("received_at", TIMESTAMP, None, False),
    ("source", "string", None, False),
    ("origin_source", "string", None, True),
    ("environment", {"enum": ["production", "sandbox"]}, None, False),
    ("account_id", "string", None, False),
    ("prescription_id", "string", "L", True),
    ("sequence", "long", None, True),
    ("correlation_id", "string", None, True),
]
EXTENSIONS = ("extensions", {"map": "string"}, "D", False)

# Records that the catalogue names in words.
AS_BEFORE = {"record (as medication)": "medication", "record (as above)": "prescriber"}
SPELLED_OUT = {each["name"]: each["type"] for each in CATALOGUE["common_data_fields"]}

Row = tuple[str, Any, str | None, bool]


def camel(event_type: str) -> str:
    return "".join(word.capitalize() for word in re.split(r"[._]", event_type))


def phi(letter: str) -> str | None:
    """Return the class a schema states: those of providers and of nobody are not stated."""
    return letter if letter in "DL" else None


def top_level_parts(text: str) -> list[str]:
    """Split at the commas that are outside of braces and parentheses."""
    return re.findall(r"(?:[^,{(]|\{[^}]*\}|\([^)]*\))+", text)


def wanted_type(words: str, letter: str) -> Any:
    """Return what a type of the catalogue must be, records as rows."""
    words = SPELLED_OUT[AS_BEFORE[words]] if words in AS_BEFORE else words
    if match := re.fullmatch(r"enum\{(.*)\}", words):
        return {"enum": match[1].split(",")}
    if match := re.fullmatch(r"decimal\((\d+),(\d+)\)", words):
        return {"type": "bytes", "logicalType": "decimal", "precision": int(match[1]), "scale": int(match[2])}
    if match := re.fullmatch(r"array<(.*)>", words):
        return {"array": wanted_type(match[1], letter)}
    if words == "address":
        return wanted_type(CATALOGUE["named_records"]["address"]["type"], CATALOGUE["named_records"]["address"]["phi"])
    if match := re.fullmatch(r"record\{(.*)\}", words):
        return {"record": [row for part in top_level_parts(match[1]) for row in nested_rows(part, letter)]}
    simple = {"date": DATE, "timestamp-micros": TIMESTAMP, "map<string>": {"map": "string"}}
    return simple.get(words, words)


def nested_rows(part: str, letter: str) -> Iterator[Row]:
    name, _, words = part.partition(":")
    if words == "address":
        letter = CATALOGUE["named_records"]["address"]["phi"]
    yield from rows(name.removesuffix("?"), words or "string", letter, nullable=name.endswith("?"))


def rows(name: str, words: str, letter: str, *, nullable: bool) -> Iterator[Row]:
    """Return the rows of one field of the catalogue: itself and, after an enum, the place for other words."""
    yield name, wanted_type(words, letter), phi(letter), nullable
    if words.startswith("enum{"):
        yield f"raw_{name}", "string", phi(letter), True
    if words.startswith("array<enum{"):
        yield f"raw_{name}", {"array": "string"}, phi(letter), False


def wanted_rows(event: dict[str, Any]) -> list[Row]:
    common = [each for each in CATALOGUE["common_data_fields"] if each["name"] != "prescription_id"]
    fields = [*(common if event["common"] else []), *event["fields"]]
    own = [
        row for each in fields for row in rows(each["name"], each["type"], each["phi"], nullable=not each["required"])
    ]
    return [*LEADING, *own, EXTENSIONS]


def found_rows(record: dict[str, Any]) -> list[Row]:
    return [
        (
            field["name"],
            found_type(field["type"][-1] if isinstance(field["type"], list) else field["type"]),
            field.get("phi"),
            isinstance(field["type"], list),
        )
        for field in record["fields"]
    ]


def found_type(schema: Any) -> Any:
    if isinstance(schema, str):
        return schema
    match schema["type"]:
        case "record":
            return {"record": found_rows(schema)}
        case "enum":
            return {"enum": [symbol for symbol in schema["symbols"] if symbol != "UNKNOWN"]}
        case "array":
            return {"array": found_type(schema["items"])}
        case "map":
            return {"map": found_type(schema["values"])}
    return {name: value for name, value in schema.items() if name != "doc"}


@pytest.mark.parametrize("event_type", EVENTS)
def test_a_record_has_the_fields_of_its_event_in_order_and_no_others(event_type: str) -> None:
    record = expand(SCHEMAS[f"drx.v1.{camel(event_type)}"])

    assert found_rows(record) == wanted_rows(EVENTS[event_type])


def test_an_unrecognized_delivery_keeps_the_bytes_and_the_reason() -> None:
    assert found_rows(expand(SCHEMAS["drx.v1.UnrecognizedDelivery"])) == [
        ("webhook_id", "string", None, False),
        ("source", "string", None, False),
        ("received_at", TIMESTAMP, None, False),
        ("reason", "string", None, False),
        ("detail", "string", None, False),
        ("field", "string", None, False),
        ("headers", {"map": "string"}, None, False),
        ("body", "bytes", "D", False),
    ]


def test_the_files_are_lawful_and_locked() -> None:
    lock = read_lock(schemas_root())

    assert findings(SCHEMAS, lock) == []
    assert lock.drift(SCHEMAS) == []


def test_a_locked_schema_needs_no_other(subtests: pytest.Subtests) -> None:
    """Several clients do not resolve references, so the registered form has none."""
    for entry in bundled().entries:
        with subtests.test(entry.record):
            text = json.dumps(entry.schema)
            defined = {f"drx.v1.{name}" for name in re.findall(r'"name": "([A-Z]\w+)"', text)}

            assert set(re.findall(r'"(drx\.v1\.\w+)"', text)) <= defined
            assert entry.subject == f"{default_topic(entry.record)}-{entry.record}"
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

    with pytest.raises(ConfigError, match="take it from version control"):
        parse_lock(document)


def work_tree(root: Path) -> Path:
    """Return a folder with a copy of the schemas."""
    for path in [*schemas_root().glob("*/*.avsc"), *schemas_root().glob("*.json")]:
        copy = root / path.relative_to(schemas_root())
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return root


def edit_file(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def run(*arguments: str | Path) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(schemas_command, [str(each) for each in arguments])
    return outcome.exit_code, outcome.stdout, outcome.stderr


def test_check_and_lock_refuse_an_unlawful_change_and_say_which_field_and_why(tmp_path: Path) -> None:
    root = work_tree(tmp_path)
    locked = (root / "schemas.lock.json").read_bytes()
    edit_file(root / "common" / "Medication.avsc", '"scale": 3', '"scale": 2')

    code, out, _ = run("check", "--root", root, "--json")
    first = json.loads(out)["findings"][0]
    assert code == 1
    assert (first["path"], first["rule"]) == ("medication.quantity", "changed")
    code, _, told = run("lock", "--root", root)
    assert code == 1
    assert "drx.v1.PrescriptionSent medication.quantity: scale was 3 and is 2" in told
    assert (root / "schemas.lock.json").read_bytes() == locked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"type": "record", "name": "Other"}', "must hold the type SystemPing"),
        ("[]", "must hold"),
    ],
)
def test_a_file_that_is_no_schema_is_named(tmp_path: Path, text: str, message: str) -> None:
    root = work_tree(tmp_path)
    (root / "events" / "SystemPing.avsc").write_text(text)

    with pytest.raises(ConfigError, match=rf"SystemPing\.avsc.*{message}"):
        read_schemas(root)


UNKNOWN_FIRST = {"type": "enum", "name": "E", "doc": "d", "symbols": ["UNKNOWN", "a"], "default": "UNKNOWN"}
RAW = {"name": "raw_f", "type": ["null", "string"], "default": None, "doc": "d"}


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("doc_missing", [{"name": "f", "type": "string"}]),
        ("doc_missing", [{"name": "f", "doc": "d", "type": {"type": "record", "name": "R", "fields": []}}]),
        ("nullable", [{"name": "f", "doc": "d", "type": ["string", "null"], "default": ""}]),
        ("nullable", [{"name": "f", "doc": "d", "type": ["null", "string", "int"], "default": None}]),
        ("nullable", [{"name": "f", "doc": "d", "type": ["null", "string"]}]),
        ("enum_unknown", [{"name": "f", "doc": "d", "type": {**UNKNOWN_FIRST, "default": "a"}}, RAW]),
        ("enum_unknown", [{"name": "f", "doc": "d", "type": {**UNKNOWN_FIRST, "symbols": ["a", "UNKNOWN"]}}, RAW]),
        ("enum_unknown", [{"name": "f", "doc": "d", "type": {"type": "enum", "name": "E", "symbols": []}}, RAW]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": UNKNOWN_FIRST}]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": UNKNOWN_FIRST}, {**RAW, "phi": "L"}]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": {"type": "array", "items": UNKNOWN_FIRST}}, RAW]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": ["null", UNKNOWN_FIRST], "default": None}]),
        ("type_not_used", [{"name": "f", "doc": "d", "type": "double"}]),
        ("type_not_used", [{"name": "f", "doc": "d", "type": {"type": "long", "logicalType": "timestamp-millis"}}]),
        ("type_not_used", [{"name": "f", "doc": "d", "type": {"type": "array", "items": ["null", "string"]}}]),
        ("decimal_size", [{"name": "f", "doc": "d", "type": {"type": "bytes", "logicalType": "decimal"}}]),
        ("phi_class", [{"name": "f", "doc": "d", "type": "string", "phi": "X"}]),
        ("phi_class", [{"name": "f", "doc": "d", "type": "string", "phi": ["D"]}]),
        (
            "phi_class",
            [
                {
                    "name": "f",
                    "doc": "d",
                    "phi": "D",
                    "type": {
                        "type": "record",
                        "name": "R",
                        "doc": "d",
                        "fields": [{"name": "g", "doc": "d", "type": "string", "phi": "L"}],
                    },
                }
            ],
        ),
    ],
)
def test_a_schema_that_breaks_a_house_rule_is_refused(rule: str, fields: list[dict[str, Any]]) -> None:
    record = {"type": "record", "name": "T", "namespace": "drx.v1", "doc": "d", "fields": fields}

    assert rule in {finding.rule for finding in house_findings(record)}
