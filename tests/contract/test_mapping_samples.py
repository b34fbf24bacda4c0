"""The vendors that have profiles, written a second time as mapping files, say the same: the language suffices."""

from __future__ import annotations

import copy
import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.mapped import compile_mapping
from bridge.ingress.profiles.profile import Mapped, Profile
from tests.contract.test_profile_samples import CASES
from tests.unit.profile_documents import SAMPLES
from tests.unit.test_profile_dosespot import RESULTS, UPDATES, result, update
from tests.unit.vendor_documents import ACCOUNT, ROWS, push, said

DOCS = Path(__file__).parents[2] / "docs" / "vendors.md"
MAPPINGS = Path(__file__).parents[1] / "data" / "mappings"


@cache
def mapping(profile: str) -> Profile:
    return load_profile("mapped", ACCOUNT | {"mapping": str(MAPPINGS / f"{profile}.toml")})


def assert_same(profile: str, body: Any) -> None:
    ours, theirs = push(profile, body, id="dlv_1"), push(mapping(profile), body, id="dlv_1")

    if isinstance(ours, ParkReason):
        assert isinstance(theirs, ParkReason)
        assert (theirs.reason, theirs.detail) == (ours.reason, ours.detail)
        return
    assert isinstance(theirs, Mapped), theirs
    assert [(event.id, event.type, event.key) for event in theirs.events] == [
        (event.id, event.type, event.key) for event in ours.events
    ]
    assert [event.value for event in theirs.events] == [event.value for event in ours.events]
    assert (theirs.flags, theirs.extensions) == (ours.flags, ours.extensions)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_a_sample_says_the_same(row: dict[str, Any]) -> None:
    assert_same(row["profile"], (SAMPLES / row["file"]).read_bytes())


@pytest.mark.parametrize(("profile", "body"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
def test_a_row_of_the_table_says_the_same(profile: str, body: Any) -> None:
    assert_same(profile, body)


@pytest.mark.parametrize(
    "body",
    [result(row[0], StatusDetails="a", StatusNotes="b") for row in RESULTS]
    + [update(row[1].lower().replace("_", "").replace(" ", ""), StatusNotes="b") for row in UPDATES]
    + [update(int(row[0]), RelatedRxChangeQueueItemId=7) for row in UPDATES]
    + [result(3), update(5), result(4, PrescriptionId=None), result(4, PrescriptionId="a b")],
)
def test_every_status_of_dosespot_says_the_same(body: Any) -> None:
    assert_same("dosespot_push", body)


@pytest.mark.parametrize("kind", ["placed", "rerouted", "canceled", "completed", "fulfillment", "created"])
def test_every_event_of_photon_says_the_same(kind: str) -> None:
    body = json.loads((SAMPLES / "profiles" / "p16_photon_order_placed.json").read_bytes())
    second = copy.deepcopy(body["data"]["fills"][0]) | {"id": "fil_2", "prescription": {"id": "rx_2"}}
    body["data"]["fills"] += [{"id": "without"}, second]
    body["data"]["state"] = "SHIPPED"

    assert_same("photon_cloudevents", body | {"type": f"photon:order:{kind}"})
    assert_same(
        "photon_cloudevents", body | {"type": "photon:prescription:created", "data": {"id": "rx_1", "externalId": "1"}}
    )


def file_of_the_docs(name: str) -> str:
    """Give a file that the page about vendors shows."""
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
