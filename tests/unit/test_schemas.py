"""The lock says what the schema files say, the files keep the house rules, and nothing lawless is locked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.commands.schemas import schemas as schemas_command
from bridge.errors import ConfigError
from bridge.registry.loader import bundled, read_lock, read_schemas, schemas_root
from bridge.registry.lock import default_topic, format_lock, parse_lock
from bridge.registry.rules import findings, house_findings
from bridge.registry.schemas import digest, fingerprint

SCHEMAS = read_schemas(schemas_root())


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
        ("enum_unknown", [{"name": "f", "doc": "d", "type": {**UNKNOWN_FIRST, "default": "a"}}, RAW]),
        ("enum_unknown", [{"name": "f", "doc": "d", "type": {**UNKNOWN_FIRST, "symbols": ["a", "UNKNOWN"]}}, RAW]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": UNKNOWN_FIRST}]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": UNKNOWN_FIRST}, {**RAW, "phi": "L"}]),
        ("raw_missing", [{"name": "f", "doc": "d", "type": {"type": "array", "items": UNKNOWN_FIRST}}, RAW]),
        ("type_not_used", [{"name": "f", "doc": "d", "type": {"type": "long", "logicalType": "timestamp-millis"}}]),
        ("type_not_used", [{"name": "f", "doc": "d", "type": {"type": "array", "items": ["null", "string"]}}]),
        ("decimal_size", [{"name": "f", "doc": "d", "type": {"type": "bytes", "logicalType": "decimal"}}]),
        ("phi_class", [{"name": "f", "doc": "d", "type": "string", "phi": "X"}]),
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
