"""The mapping file of the page about vendors makes the event that the page shows."""

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from bridge.commands.map import map_body, mapping
from bridge.mapping.mapped import compile_mapping
from bridge.mapping.profile import IGNORED, Mapped
from tests.unit.vendor_documents import outcome_of, push, said

DOCS = Path(__file__).parents[2] / "docs" / "vendors.md"


def file_of_the_docs(name: str) -> str:
    found = re.search(rf"<!-- file: {name} -->\n```\w+\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize(
    "command",
    [
        "mapping check events.toml events.json",
        "mapping check fhir.toml fhir.json",
        "mapping check form.toml form.txt",
        "map --profile photon_cloudevents created.json",
    ],
)
def test_a_command_prints_what_the_docs_show(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *arguments = command.split()
    for name in (each for each in arguments if "." in each):
        (tmp_path / name).write_text(file_of_the_docs(name))
    monkeypatch.chdir(tmp_path)

    assert {"map": map_body, "mapping": mapping}[verb].main(arguments, standalone_mode=False) == 0
    found = re.search(rf"{command}\n```\n```\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    shown = re.escape(found[1]).replace("…", ".*").replace("  .*\\\n", ".*")
    assert re.match(shown, capsys.readouterr().out, re.DOTALL)


def test_the_bundle_of_the_docs_is_a_request_and_a_dispense_in_any_bundle() -> None:
    compiled = compile_mapping(file_of_the_docs("fhir.toml").encode(), "fhir.toml", {"account_id": "acct_1"})
    bundle = json.loads(file_of_the_docs("fhir.json"))

    request, dispense = outcome_of(compiled, bundle).events
    assert said(dispense) == {
        "fill_number": 0,
        "fill_id": "md-7",
        "fill_status": "dispensed",
        "quantity_dispensed": Decimal(30),
        "fill_date": date(2026, 9, 14),
    }
    assert ("mr-1" in str(request.value), "p-1" in str(dispense.value["extensions"])) == (True, False)
    again = outcome_of(compiled, bundle | {"timestamp": "2026-09-15T00:00:00Z", "entry": bundle["entry"][:0:-1]}).events
    assert {(each.id, each.sha256) for each in again} == {(each.id, each.sha256) for each in (request, dispense)}
    assert outcome_of(compiled, bundle | {"entry": bundle["entry"][:1]}) is IGNORED


def test_the_batch_of_the_docs_becomes_what_they_say() -> None:
    compiled = compile_mapping(file_of_the_docs("events.toml").encode(), "events.toml", {})
    outcome = push(compiled, file_of_the_docs("events.json").encode())
    assert isinstance(outcome, Mapped)
    assert [(event.id, event.key, event.value["account_id"]) for event in outcome.events] == [
        ("e-1/step", "acme:10442", "s_7"),
        ("e-2/other.reported", "acme:10443", "s_7"),
    ]


def test_the_wrapped_push_of_the_docs_becomes_what_they_show() -> None:
    compiled = compile_mapping(file_of_the_docs("pubsub.toml").encode(), "pubsub.toml", {})
    (event,) = outcome_of(compiled, file_of_the_docs("wrapped.json").encode()).events
    assert (event.id, event.key) == ("9070443601/fulfillment.status_changed", "acme:10442")
    assert event.value["extensions"] == {"/message/data/patient": '"Ann"'}


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
