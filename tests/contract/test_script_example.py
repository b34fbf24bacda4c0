"""The mapping file for NCPDP SCRIPT in docs/examples, on its XML messages."""

import copy
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from bridge.event import Event, ParkReason
from bridge.mapping.mapped import compile_mapping
from bridge.mapping.profile import Mapped, read_body
from tests.profile_properties import assert_writable
from tests.unit.profile_documents import a_delivery, leaves
from tests.unit.vendor_documents import said

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "script"
MAPPING = compile_mapping((FOLDER / "script.toml").read_bytes(), "script.toml", {}).reading_xml()
ORDER = "script:5KX0A1"
SENT = {"kind": "status", "code": "010"}

# What a message becomes: type, key, and some of its fields.
MESSAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "status": ("prescription.sent", ORDER, {"delivery_mode": "erx", "message_id": "new-1"}),
    "error": ("prescription.transmission_failed", ORDER, {"retryable": True, "relates_to_message_id": "new-1"}),
    "error_without_order": ("other.reported", "script:6301875277001", {"reported_type": "Error"}),
    "verify": ("prescription.processed", ORDER, {"relates_to_message_id": "new-1"}),
    "rxfill_dispensed": ("fill.status_changed", ORDER, {"fill_status": "dispensed", "fill_id": "700273-2026-09-14"}),
    "rxfill_partially_dispensed": (
        *("fill.status_changed", ORDER),
        {"fill_status": "partially_dispensed", "note": "Rest on Thursday"},
    ),
    "rxfill_not_dispensed": ("fill.status_changed", ORDER, {"fill_status": "not_dispensed", "note": "Never picked up"}),
    "rxfill_transferred": (
        *("fill.status_changed", ORDER),
        {"fill_status": "transferred", "transferred_to_ncpdp_id": "7701631"},
    ),
    "cancelrxresponse_approved": ("cancel.responded", ORDER, {"decision": "approved", "request_id": "cx-1"}),
    "cancelrxresponse_denied": (
        *("cancel.responded", ORDER),
        {"decision": "denied", "denial_reason_code": "AF", "note": "Already picked up"},
    ),
    "rxrenewalrequest": ("renewal.requested", ORDER, {"matched": True, "refills_requested": 3, "request_id": "re-1"}),
    "rxchangerequest": ("change.requested", "script:ch-1", {"change_code": "T", "matched": False}),
    "newrx": ("prescription.created", ORDER, {"origin": "new", "message_id": "new-1"}),
    "rxtransferrequest": ("other.reported", ORDER, {"reported_type": "RxTransferRequest"}),
}


def document_of(name: str, **texts: str) -> Any:
    content = (FOLDER / f"{name}.xml").read_text()
    for old, new in texts.items():
        assert old in content
        content = content.replace(old, new)
    return read_body(MAPPING, content.encode())


def outcome_of(document: Any) -> Mapped | ParkReason:
    return MAPPING.map(a_delivery(b"", id="dlv_1"), document)


def event_of(document: Any) -> Event:
    outcome = outcome_of(document)
    assert isinstance(outcome, Mapped), outcome
    (event,) = outcome.events
    assert_writable(event)
    return event


def test_each_message_beside_the_file_is_one_here() -> None:
    assert sorted(MESSAGES) == sorted(path.stem for path in FOLDER.glob("*.xml"))


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_becomes_what_the_table_says_with_an_id_of_its_own(name: str) -> None:
    event_type, key, fields = MESSAGES[name]

    event = event_of(document_of(name))

    assert (event.type, event.key) == (event_type, key)
    assert {field: said(event)[field] for field in fields} == fields
    assert event.id.partition("/")[0] == document_of(name)["Message"]["Header"]["MessageID"]
    assert event.occurred_at.isoformat() == "2026-09-14T15:10:03+00:00"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("status", ">010<", ">999<"),
        ("error", ">602<", ">123<"),
        ("verify", ">010<", ">020<"),
        ("rxfill_dispensed", "Dispensed>", "Returned>"),
        ("cancelrxresponse_approved", "Approved>", "Replaced>"),
        ("rxchangerequest", ">T<", ">Z<"),
    ],
)
def test_a_code_that_no_table_knows_is_reported_whole(name: str, old: str, new: str) -> None:
    event = event_of(document_of(name, **{old: new}))

    assert event.type == "other.reported"
    assert event.value["reported_type"] == {"rxfill_dispensed": "RxFill"}.get(name) or re.search(
        rf"<({event.value['reported_type']})>", (FOLDER / f"{name}.xml").read_text()
    )
    assert new.strip("<>") in str(event.value["extensions"])


def test_what_is_no_message_of_script_is_parked() -> None:
    assert outcome_of(read_body(MAPPING, b"<Order/>")) == ParkReason("unknown_type", field="/Message/Body")


@pytest.mark.parametrize("name", MESSAGES)
def test_whatever_a_message_says_is_in_its_event(name: str) -> None:
    body = document_of(name)
    for pointer, _ in leaves(body):
        changed = copy.deepcopy(body)
        *way, last = pointer.split("/")[1:]
        holder: Any = reduce(lambda value, step: value[step], way, changed)
        holder[last] = "CANARY-7"

        outcome = outcome_of(changed)

        if isinstance(outcome, Mapped):
            assert "CANARY-7" in repr([event.value for event in outcome.events]), pointer
        else:
            assert outcome.reason == "unusable"
