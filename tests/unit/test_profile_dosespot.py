"""The notifications of DoseSpot: a number of an enumeration becomes a type, or is reported as it came."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.profile import Mapped
from tests.profile_properties import assert_writable
from tests.unit.vendor_documents import events, push, said

PROFILE = "dosespot_push"
AT = "2026-09-14T15:10:03.0025748Z"


def result(status: object, **members: Any) -> dict[str, Any]:
    data = {"PrescriptionId": 7, "ClinicId": 21, "StatusDateTime": AT, "PrescriptionStatus": status}
    return {"EventType": "PrescriptionResult", "Data": data | members}


def update(status: object, **members: Any) -> dict[str, Any]:
    data = {"PrescriptionId": 7, "ClinicId": 21, "StatusDateTime": AT, "MedicationStatus": status}
    return {"EventType": "MedicationStatusUpdate", "Data": data | members}


def network(kind: str, code: str, description: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "raw_kind": None, "code": code, "description_code": None, "description": description}


UNSCHEDULED = {"dea_schedule": "UNKNOWN"}
RESULTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("1", "Entered", "prescription.created", {"origin": "new", "awaiting": "signature"}),
    ("9", "Edited", "prescription.updated", {"changed_fields": []}),
    (
        *("4", "eRxSent", "prescription.sent"),
        {"delivery_mode": "erx", "attempt": 1, "network_status": network("status", "000")},
    ),
    (
        *("2", "Printed", "prescription.sent"),
        {"delivery_mode": "print", "attempt": 1, "network_status": network("status", "")},
    ),
    ("13", "PharmacyVerified", "prescription.processed", {"network_status": network("verify", "010")}),
    (
        *("6", "Error", "prescription.transmission_failed"),
        {"network_status": network("error", ""), "retryable": False, "attempt": 1},
    ),
    ("10", "EpcsError", "epcs.signing_failed", UNSCHEDULED | {"failure": "other"}),
    (
        *("11", "EpcsSigned", "epcs.signed"),
        UNSCHEDULED
        | {"factors": [], "raw_factors": [], "signed_at": datetime(2026, 9, 14, 15, 10, 3, 2574, tzinfo=UTC)},
    ),
]
UPDATES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("11", "Dispensed", "fill.status_changed", {"fill_number": 0, "fill_status": "dispensed"}),
    ("12", "Partially_Dispensed", "fill.status_changed", {"fill_number": 0, "fill_status": "partially_dispensed"}),
    ("13", "Not Dispensed", "fill.status_changed", {"fill_number": 0, "fill_status": "not_dispensed"}),
    ("8", "Cancelled", "cancel.responded", {"request_id": "7", "decision": "approved"}),
    ("9", "CancelDenied", "cancel.responded", {"request_id": "7", "decision": "denied"}),
]


@pytest.mark.parametrize(
    ("body", "number", "name", "event_type", "wanted"),
    [(result, *row) for row in RESULTS] + [(update, *row) for row in UPDATES],
)
def test_a_status_is_a_number_digits_or_a_name(
    body: Any, number: str, name: str, event_type: str, wanted: dict[str, Any]
) -> None:
    for status in (int(number), number, name, name.upper()):
        outcome = push(PROFILE, body(status), id="dlv_1")

        assert isinstance(outcome, Mapped)
        (event,) = outcome.events
        assert (event.id, event.type, event.key) == ("dlv_1/1", event_type, "ds:7")
        assert said(event) == wanted
        assert event.value["account_id"] == "ds:21"
        # Seven digits of a second are one too many.
        assert event.occurred_at == datetime(2026, 9, 14, 15, 10, 3, 2574, tzinfo=UTC)
        assert (outcome.flags, outcome.extensions) == (("instant_truncated",), 0)
        assert_writable(event)


NO_RESULTS: tuple[object, ...] = (3, 5, 7, 8, 12, 14, 0, -1, "Deleted", True, {})
NO_UPDATES: tuple[object, ...] = (3, 4, 5, 0, 99, None, "eRxSent", [])


@pytest.mark.parametrize(
    ("body", "name", "status"),
    [
        *((result(status), "PrescriptionResult", status) for status in NO_RESULTS),
        *((update(status), "MedicationStatusUpdate", status) for status in NO_UPDATES),
    ],
)
def test_a_status_that_none_of_the_types_says_is_reported_of_its_prescription(
    body: Any, name: str, status: object
) -> None:
    (event,) = events(PROFILE, body, id="dlv_1")

    assert (event.id, event.type, event.key) == ("dlv_1/1", "other.reported", "ds:7")
    is_word = type(status) in (int, str)
    assert event.value["reported_type"] == (f"{name}:{status}" if is_word else name)
    assert bool(event.value["extensions"]) == (not is_word and status is not None)
    assert_writable(event)


@pytest.mark.parametrize("event_type", ["PrescriberNotificationCounts", "ClinicianLockedOut"])
def test_another_notification_is_reported_of_its_account(event_type: str) -> None:
    (event,) = events(PROFILE, {"EventType": event_type, "Data": {"ClinicId": 45}})

    assert (event.type, event.value["reported_type"], event.value["prescription_id"]) == (
        "other.reported",
        event_type,
        None,
    )
    # The account of the option, so that all of these are in one order.
    assert (event.key, event.value["account_id"]) == ("acct_dev", "acct_dev")
    assert event.value["extensions"] == {"/Data": '{"ClinicId":45}'}
    (own,) = events(load_profile(PROFILE), {"EventType": event_type, "Data": {"ClinicId": 45}})
    assert (own.key, own.value["account_id"], own.value["extensions"]) == ("ds:45", "ds:45", {})


def test_the_status_may_stand_under_its_short_name() -> None:
    body = result(None, Status="4")

    assert events(PROFILE, body)[0].type == "prescription.sent"


def test_details_and_notes_go_where_the_type_has_a_place_or_are_kept() -> None:
    (sent,) = events(PROFILE, result(4, StatusDetails="a", StatusNotes="b"))
    (filled,) = events(PROFILE, update(12, StatusDetails="a", StatusNotes="b"))
    (created,) = events(PROFILE, result(1, StatusDetails="a", StatusNotes=None))

    assert said(sent)["network_status"]["description"] == "a"
    assert sent.value["extensions"] == {"/Data/StatusNotes": '"b"'}
    assert filled.value["note"] == "b"
    assert filled.value["extensions"] == {"/Data/StatusDetails": '"a"'}
    assert created.value["extensions"] == {"/Data/StatusDetails": '"a"'}


@pytest.mark.parametrize(
    ("members", "correlation", "kept"),
    [
        ({"RelatedRxRequestQueueItemId": 1623}, "ds:rq:1623", {}),
        ({"RelatedRxChangeQueueItemId": "5"}, "ds:ch:5", {}),
        (
            {"RelatedRxRequestQueueItemId": 1, "RelatedRxChangeQueueItemId": 2},
            "ds:rq:1",
            {"/Data/RelatedRxChangeQueueItemId": "2"},
        ),
        ({"RelatedRxRequestQueueItemId": {}}, None, {"/Data/RelatedRxRequestQueueItemId": "{}"}),
    ],
)
def test_a_request_correlates(members: dict[str, Any], correlation: str | None, kept: dict[str, str]) -> None:
    (event,) = events(PROFILE, result(4, **members))

    assert event.value["correlation_id"] == correlation
    assert event.value["extensions"] == kept


def test_a_time_without_a_zone_is_utc_unless_the_option_says_one() -> None:
    body = result(4, StatusDateTime="2026-09-14T15:10:03")
    chicago = load_profile(PROFILE, {"zone": "America/Chicago"})

    assert events(PROFILE, body)[0].occurred_at == datetime(2026, 9, 14, 15, 10, 3, tzinfo=UTC)
    assert events(chicago, body)[0].occurred_at == datetime(2026, 9, 14, 20, 10, 3, tzinfo=UTC)


def test_a_notification_without_a_clinic_has_the_account_of_the_option_or_parks() -> None:
    body = result(4, ClinicId=None)

    assert events(PROFILE, body)[0].value["account_id"] == "acct_dev"
    assert push(load_profile(PROFILE), body) == ParkReason("unusable", "missing_field", "/Data/ClinicId", "ds:7")
