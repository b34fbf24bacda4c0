"""The mapping file of the page about vendors makes the event that the page shows."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.commands.map import mapping
from bridge.mapping.mapped import compile_mapping
from bridge.mapping.profile import Mapped
from tests.unit.vendor_documents import push, said

DOCS = Path(__file__).parents[2] / "docs" / "vendors.md"


def file_of_the_docs(name: str) -> str:
    found = re.search(rf"<!-- file: {name} -->\n```\w+\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_batch_of_the_docs_becomes_what_they_say_and_the_check_prints_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("events.toml", "events.json"):
        (tmp_path / name).write_text(file_of_the_docs(name))
    monkeypatch.chdir(tmp_path)

    assert mapping.main(["check", "events.toml", "events.json"], standalone_mode=False) == 0
    found = re.search(r"check events.toml events.json\n```\n```\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    shown = re.escape(found[1]).replace("…", ".*").replace("  .*\\\n", ".*")
    assert re.match(shown, capsys.readouterr().out, re.DOTALL)
    compiled = compile_mapping(file_of_the_docs("events.toml").encode(), "events.toml", {})
    outcome = push(compiled, file_of_the_docs("events.json").encode())
    assert isinstance(outcome, Mapped)
    assert [(event.id, event.key, event.value["account_id"]) for event in outcome.events] == [
        ("e-1/step", "acme:10442", "s_7"),
        ("e-2/other.reported", "acme:10443", "s_7"),
    ]


def test_the_mapping_of_the_docs_makes_the_event_that_they_show() -> None:
    compiled = compile_mapping(file_of_the_docs("acme.toml").encode(), "acme.toml", {})

    outcome = push(compiled, file_of_the_docs("state.json").encode())

    assert isinstance(outcome, Mapped)
    (event,) = outcome.events
    assert (event.type, event.key, event.value["account_id"]) == ("fulfillment.status_changed", "acme:10442", "s_7")
    assert event.occurred_at == datetime(2026, 9, 18, 21, 22, tzinfo=UTC)
    assert said(event) == {
        "queue_id": "10442",
        "fulfillment_status": "in_progress",
        "lot_number": "L2026-9",
        "raw_status": "IN_WORK",
    }
    assert event.value["extensions"] == {"/patient": '{"name":"Marisol Quintero"}'}
    assert outcome.flags == ("local_time",)
