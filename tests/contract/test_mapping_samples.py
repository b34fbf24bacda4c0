"""The mapping file of the page about vendors makes the event that the page shows."""

import re
from datetime import UTC, datetime
from pathlib import Path

from bridge.mapping.mapped import compile_mapping
from bridge.mapping.profile import Mapped
from tests.unit.vendor_documents import push, said

DOCS = Path(__file__).parents[2] / "docs" / "vendors.md"


def file_of_the_docs(name: str) -> str:
    found = re.search(rf"<!-- file: {name} -->\n```\w+\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    return found[1]


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
