"""The shipped mapping files: DigitalRX, DoseSpot and Photon."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.mapping.lookup import load_profile
from bridge.mapping.profile import Mapped
from tests.profile_properties import assert_writable, opcodes_of
from tests.unit.vendor_documents import events, outcome_of, push, said

DIGITALRX = "digitalrx_pharmacy"
KEY = "q:999001:9000471"
LINE = {"StoreID": "1", "QueueID": "2"}


def status_of(**members: Any) -> tuple[Any, Any]:
    value = events(DIGITALRX, LINE | members)[0].value
    return value["fulfillment_status"], value["raw_status"]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, "received") for word in ("Submitted", "ACTIVE", "fileonly", "Pending")),
        ("Billing", "billing"),
        *((word, "in_progress") for word in ("BILLED", "Processing", "TYPED")),
        ("Packed", "packed"),
        ("approved", "approved"),
        ("Paused", "on_hold"),
        *((word, "handed_to_carrier") for word in ("Picked Up", "SHIPPED", "  picked  up ")),
        *((word, "delivered") for word in ("Delivered", "Completed")),
        *((word, "rejected") for word in ("Reject", "REJECTED", "RPH REJECT", "rph rejected")),
        *((word, "rejected") for word in ("Cancelled", "canceled", "Denied", "VOID", "voided")),
    ],
)
def test_a_word_of_the_table_is_a_status_in_any_case(word: str, status: str) -> None:
    assert status_of(RxStatus=word) == (status, word)


def test_the_first_word_that_says_something_counts() -> None:
    assert status_of(Statuswf=" ", Status=None, RxStatus="Packed", new_status="Shipped") == ("packed", "Packed")
    assert status_of(RxStatus="Packed", Statuswf="TYPED") == ("in_progress", "TYPED")


@pytest.mark.parametrize(
    ("sign", "status"),
    [
        ({"DeliveredDate": "9/18/2026", "PickupDate": "9/17/2026"}, "delivered"),
        ({"PickupDate": "9/17/2026", "ApprovedDate": "9/16/2026"}, "handed_to_carrier"),
        ({"tracking_number": "1", "PrintedDate": "9/16/2026"}, "handed_to_carrier"),
        ({"ApprovedByInitials": "JL", "PackDateTime": "9/16/2026"}, "approved"),
        ({"PackDateTime": "9/16/2026"}, "packed"),
        ({"PrintedDate": "9/16/2026"}, "packed"),
        ({"DeliveryDate": "9/16/2026"}, "received"),
        ({"PackDateTime": ""}, "received"),
    ],
)
def test_without_a_word_the_first_sign_counts(sign: dict[str, str], status: str) -> None:
    assert status_of(**sign) == (status, None)


def test_a_date_that_was_never_set_is_no_sign() -> None:
    """A .NET `DateTime` without a value is written as the first day of the year 1."""
    unset = {"DeliveredDate": "0001-01-01T00:00:00", "PickupDate": "1/1/0001 12:00:00 AM"}

    assert status_of(**unset, PrintedDate="9/17/2026") == ("packed", None)
    _, shipment = events(DIGITALRX, LINE | unset | {"TrackingNumber": "1", "Status": "Delivered"})
    assert shipment.value["delivered_at"] is None


@pytest.mark.parametrize(
    ("number", "carrier"),
    [
        ("1Z999AA10123456784", "ups"),
        ("9400111899223100001234", "usps"),
        ("12345678901234567890", "usps"),
        ("123456789012", "fedex"),
        ("123456789012345", "fedex"),
        (1234567890, "dhl"),
        ("1234567890123", "other"),
        ("LOCAL-7", "other"),
    ],
)
def test_the_shape_of_a_tracking_number_names_the_carrier(number: object, carrier: str) -> None:
    value = events(DIGITALRX, LINE | {"TrackingNumber": number})[1].value

    assert (value["carrier"], value["tracking_number"]) == (carrier, str(number))


@pytest.mark.parametrize(
    ("value", "active"),
    [("0", False), (0, False), (False, False), ("No", False), ("1", True), (1, True), ("YES", True), (True, True)],
)
def test_a_truth_is_read_in_any_spelling(value: object, active: object) -> None:
    assert events(DIGITALRX, LINE | {"Active_Rx": value})[0].value["active"] is active
    assert events(DIGITALRX, LINE | {"ActiveRx": value})[0].value["active"] is active


def test_billing_is_read_in_any_case_and_another_word_kept() -> None:
    assert said(events(DIGITALRX, LINE | {"BillingStatus": "Billed"})[0])["billing_status"] == "billed"
    value = said(events(DIGITALRX, LINE | {"BillingStatus": "Comped"})[0])

    assert (value["billing_status"], value["raw_billing_status"]) == ("UNKNOWN", "Comped")


@pytest.mark.parametrize(
    "name",
    [
        *("SSN", "ssn", "PatientSSN", "patient_ssn", "patientssn", "SSNLast4", "ssnlast4", "SpouseSsnLast4", "S.S.N."),
        *("spouse_ssn_last4", "EMPLOYEESSN", "PatientSSNHash", "patientssnlast4", "EmployeeSSN4"),
        *(
            "social_security_number",
            "SocialSecurityNo",
            "Social Security #",
            "date_of_injury",
            "DateOfInjury",
            "INJURY",
        ),
        *("PatientEmployer", "employer-name", "EmployerPhone", "InsuranceID", "PrimaryInsurance", "insurance_2"),
    ],
)
def test_no_spelling_of_what_nobody_should_hold_is_in_an_event(name: str) -> None:
    secret = "CANARY-7"
    body = LINE | {name: secret, "Patient": {name: {"inner": secret}, "PatientName": "kept"}, "Rows": [{name: secret}]}
    body |= {"TrackingNumber": "1", "INSURANCE": {"InsuredName": secret}}

    alone, outcome = outcome_of(DIGITALRX, body), outcome_of(DIGITALRX, [body, body | {"Insurance": secret}])

    assert secret not in repr([event.value for each in (alone, outcome) for event in each.events])
    assert alone.events[0].value["extensions"] == {"/Patient": '{"PatientName":"kept"}'}


@pytest.mark.parametrize(
    "name",
    [
        *("BusinessName", "BUSINESSNAME", "businessname", "business_name", "AddressNumber", "ClassName", "class_no"),
        *("ProcessName", "Employee", "Sensor", "PassNumber"),
    ],
)
def test_a_name_that_only_looks_like_one_of_these_is_kept(name: str) -> None:
    assert outcome_of(DIGITALRX, LINE | {name: "kept"}).events[0].value["extensions"] == {f"/{name}": '"kept"'}


@pytest.mark.parametrize("name", ["{long}", "Patient{long}"])
def test_what_is_dropped_below_a_long_name_costs_no_more_than_its_bytes(name: str) -> None:
    """Counted in instructions and in bytes kept: a body twice as long must not take four times the work."""

    def work(size: int) -> tuple[int, int]:
        rows = [{"ssn": 1, "a": 2}] * (size // 40)
        body = json.dumps(LINE | {name.format(long="k" * (size // 2)): rows}).encode()
        kept = repr(outcome_of(DIGITALRX, body).events[0].value["extensions"])
        return opcodes_of(lambda: push(DIGITALRX, body)), len(kept)

    (steps, _), (steps_twice, kept_twice) = work(8_000), work(16_000)

    assert steps_twice < 3 * steps
    assert kept_twice < 16_000


LIVE = {"QueueID": 7, "Status": "Packed", "RxDate": "9/15/2026", "RxNumber": "5"}


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ([LIVE | {"Status": "Reject"}, LIVE], 1),
        ([LIVE | {"Status": "Reject", "Active_Rx": 0}, LIVE | {"Status": "Reject", "RxDate": "1/1/2026"}], 1),
        ([LIVE | {"RxDate": "10/1/2026"}, LIVE | {"RxDate": "9/30/2026"}], 0),
        ([LIVE | {"RxNumber": "9"}, LIVE | {"RxNumber": 10}], 1),
        ([LIVE | {"RxDate": "9/18/2026 0:30 PM"}, LIVE], 1),
    ],
)
def test_of_several_lines_the_one_that_counts_is_chosen(lines: list[dict[str, Any]], chosen: int) -> None:
    outcome = outcome_of(DIGITALRX, lines)

    (event,) = outcome.events
    assert event.value["raw_status"] == lines[chosen]["Status"]
    assert event.value["pharmacy_rx_number"] == str(lines[chosen]["RxNumber"])
    extensions = event.value["extensions"]
    assert isinstance(extensions, dict)
    assert json.loads(extensions[f"/{1 - chosen}"]) == lines[1 - chosen]
    assert outcome.flags == ("array_chosen", "integer_as_string_id", "time_of_receipt")


DOSESPOT = "dosespot_push"
AT = "2026-09-14T15:10:03.0025748Z"


def result(status: object, **members: Any) -> dict[str, Any]:
    data = {"PrescriptionId": 7, "ClinicId": 21, "StatusDateTime": AT, "PrescriptionStatus": status}
    return {"EventType": "PrescriptionResult", "Data": data | members}


def update(status: object, **members: Any) -> dict[str, Any]:
    data = {"PrescriptionId": 7, "ClinicId": 21, "StatusDateTime": AT, "MedicationStatus": status}
    return {"EventType": "MedicationStatusUpdate", "Data": data | members}


def network(kind: str, code: str, description: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "raw_kind": None, "code": code, "description_code": None, "description": description}


BY_ERX = {"delivery_mode": "erx", "attempt": 1, "network_status": network("status", "000")}
MOMENT = datetime(2026, 9, 14, 15, 10, 3, 2574, tzinfo=UTC)  # seven digits of a second are one too many
SIGNED = {"dea_schedule": "UNKNOWN", "factors": [], "raw_factors": [], "signed_at": MOMENT}
RESULTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("1", "Entered", "prescription.created", {"origin": "new", "awaiting": "signature"}),
    ("9", "Edited", "prescription.updated", {"changed_fields": []}),
    ("4", "eRxSent", "prescription.sent", BY_ERX),
    ("2", "Printed", "prescription.sent", BY_ERX | {"delivery_mode": "print", "network_status": network("status", "")}),
    ("13", "PharmacyVerified", "prescription.processed", {"network_status": network("verify", "010")}),
    (
        *("6", "Error", "prescription.transmission_failed"),
        {"network_status": network("error", ""), "retryable": False, "attempt": 1},
    ),
    ("10", "EpcsError", "epcs.signing_failed", {"dea_schedule": "UNKNOWN", "failure": "other"}),
    ("11", "EpcsSigned", "epcs.signed", SIGNED),
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
        outcome = push(DOSESPOT, body(status), id="dlv_1")

        assert isinstance(outcome, Mapped)
        (event,) = outcome.events
        assert (event.id, event.type, event.key) == ("dlv_1/1", event_type, "ds:7")
        assert said(event) == wanted
        assert event.value["account_id"] == "ds:21"
        assert event.occurred_at == MOMENT
        assert (outcome.flags, outcome.extensions) == (("instant_truncated",), ())
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
    (event,) = events(DOSESPOT, body, id="dlv_1")

    assert (event.id, event.type, event.key) == ("dlv_1/1", "other.reported", "ds:7")
    # The name alone: the status may be any text, which would stand in logs and labels.
    assert event.value["reported_type"] == name
    assert bool(event.value["extensions"]) == (status is not None)
    assert_writable(event)


@pytest.mark.parametrize("event_type", ["PrescriberNotificationCounts", "ClinicianLockedOut"])
def test_another_notification_is_reported_of_its_account(event_type: str) -> None:
    (event,) = events(DOSESPOT, {"EventType": event_type, "Data": {"ClinicId": 45}})

    assert (event.type, event.value["reported_type"], event.value["prescription_id"]) == (
        "other.reported",
        event_type,
        None,
    )
    # The account of the option, so that all of these are in one order.
    assert (event.key, event.value["account_id"]) == ("acct_dev", "acct_dev")
    assert event.value["extensions"] == {"/Data": '{"ClinicId":45}'}
    (own,) = events(load_profile(DOSESPOT), {"EventType": event_type, "Data": {"ClinicId": 45}})
    assert (own.key, own.value["account_id"], own.value["extensions"]) == ("ds:45", "ds:45", {})


def test_the_status_may_stand_under_its_short_name() -> None:
    body = result(None, Status="4")

    assert events(DOSESPOT, body)[0].type == "prescription.sent"


def test_details_and_notes_go_where_the_type_has_a_place_or_are_kept() -> None:
    (sent,) = events(DOSESPOT, result(4, StatusDetails="a", StatusNotes="b"))
    (filled,) = events(DOSESPOT, update(12, StatusDetails="a", StatusNotes="b"))
    (created,) = events(DOSESPOT, result(1, StatusDetails="a", StatusNotes=None))

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
    (event,) = events(DOSESPOT, result(4, **members))

    assert event.value["correlation_id"] == correlation
    assert event.value["extensions"] == kept


def test_a_time_without_a_zone_is_utc_unless_the_option_says_one() -> None:
    body = result(4, StatusDateTime="2026-09-14T15:10:03")
    chicago = load_profile(DOSESPOT, {"zone": "America/Chicago"})

    assert events(DOSESPOT, body)[0].occurred_at == datetime(2026, 9, 14, 15, 10, 3, tzinfo=UTC)
    assert events(chicago, body)[0].occurred_at == datetime(2026, 9, 14, 20, 10, 3, tzinfo=UTC)


PHOTON = "photon_cloudevents"
PHOTON_OTHER = "photon:prescription:expired"
ENVELOPE = {"/specversion": '"1.0"', "/subject": '"ord_1"'}
FILLS = [
    {"id": "fil_1", "prescription": {"id": "rx_1", "externalId": "pon_1"}},
    {"id": "fil_2", "treatment": {"name": "without a prescription"}},
    {"id": "fil_3", "prescription": {"id": "rx_3"}},
]


def order(kind: str, **data: Any) -> dict[str, Any]:
    return {
        "id": "ce_1",
        "type": f"photon:order:{kind}",
        "specversion": "1.0",
        "time": "2026-09-14T15:09:26.000Z",
        "subject": "ord_1",
        "source": "org:org_1",
        "data": {"id": "ord_1", "fills": FILLS} | data,
    }


def prescription(**data: Any) -> dict[str, Any]:
    return order("x") | {"type": "photon:prescription:created", "data": {"id": "rx_1", "externalId": "pon_1"} | data}


def test_an_order_is_an_event_for_each_fill_with_a_prescription() -> None:
    outcome = push(PHOTON, order("placed"), id="dlv_1")

    assert isinstance(outcome, Mapped)
    ids = [(event.id, event.key) for event in outcome.events]
    assert ids == [("ce_1/1", "ph:rx_1"), ("ce_1/2", "acct_dev"), ("ce_1/3", "ph:rx_3")]
    first, other, second = outcome.events
    assert first.occurred_at == datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)
    assert (first.value["account_id"], first.value["correlation_id"]) == ("ph:org_1", "ord_1")
    assert (first.value["prescriber_order_number"], second.value["prescriber_order_number"]) == ("pon_1", None)
    assert (other.type, other.value["reported_type"]) == ("other.reported", "photon:order:placed")
    assert first.value["extensions"] == ENVELOPE | {"/data/fills/0/id": '"fil_1"'}
    assert other.value["extensions"] == ENVELOPE | {
        "/data/fills/1": '{"id":"fil_2","treatment":{"name":"without a prescription"}}'
    }
    assert second.value["extensions"] == ENVELOPE | {"/data/fills/2/id": '"fil_3"'}
    assert outcome.flags == ()


@pytest.mark.parametrize(
    ("kind", "event_type", "wanted"),
    [
        ("placed", "prescription.sent", BY_ERX),
        ("rerouted", "prescription.sent", BY_ERX),
        ("canceled", "cancel.responded", {"request_id": "ord_1", "decision": "approved"}),
        ("completed", "fulfillment.status_changed", {"queue_id": "fil_3", "fulfillment_status": "delivered"}),
    ],
)
def test_what_happened_to_an_order_is_an_event_of_its_type(kind: str, event_type: str, wanted: dict[str, Any]) -> None:
    event = events(PHOTON, order(kind))[2]

    assert (event.type, said(event)) == (event_type, wanted)
    assert_writable(event)


def test_a_prescription_created_awaits_a_pharmacy() -> None:
    (event,) = events(PHOTON, prescription())

    assert (event.id, event.type, event.key) == ("ce_1/1", "prescription.created", "ph:rx_1")
    assert said(event) == {"origin": "new", "awaiting": "pharmacy", "prescriber_order_number": "pon_1"}
    assert event.value["correlation_id"] == "rx_1"
    assert event.value["extensions"] == ENVELOPE
    assert_writable(event)


OWN_FILL = {"id": "fil_1", "prescription": {"id": "rx_1", "externalId": "pon_1"}}


@pytest.mark.parametrize("kind", ["created", "expired"])
@pytest.mark.parametrize(
    ("fill", "key"),
    [
        (OWN_FILL, None),
        (OWN_FILL | {"state": None}, None),
        ({"prescription": {"id": "rx_1", "externalId": None}}, None),
        (OWN_FILL | {"state": "SENT"}, "ph:rx_1"),
        ({"id": "fil_1", "prescription": {"id": "rx_1", "externalId": "pon_2"}}, "ph:rx_1"),
        ({"id": "fil_1", "prescription": {"id": "rx_1", "drug": "A"}}, "ph:rx_1"),
        ({"prescription": {"id": "rx_1"}, "treatment": {}}, "ph:rx_1"),
        ({"id": "fil_1", "prescription": {"id": "rx_2"}}, "ph:rx_2"),
        ({"id": "fil_1"}, "acct_dev"),
    ],
)
def test_a_fill_that_only_repeats_the_event_of_its_prescription_is_part_of_it(
    fill: object, key: str | None, kind: str
) -> None:
    body = prescription(fills=[FILLS[2], fill, fill]) | {"type": f"photon:prescription:{kind}"}

    own, other, *others = events(PHOTON, body)

    assert [(own.id, own.key), (other.id, other.key)] == [("ce_1/1", "ph:rx_1"), ("ce_1/1.1", "ph:rx_3")]
    assert [each.key for each in others] == ([] if key is None else [key, key])
    assert {f"/data/fills/{number}" in str(own.value["extensions"]) for number in (1, 2)} == {key is None}
    assert "/data/fills/1" not in str(other.value["extensions"])


def test_a_fill_that_repeats_no_event_is_one() -> None:
    (event,) = events(PHOTON, prescription(id="a b", fills=[{"prescription": {"id": "a b"}}]) | {"type": PHOTON_OTHER})

    assert (event.key, event.value["reported_type"]) == ("acct_dev", PHOTON_OTHER)


@pytest.mark.parametrize(
    ("data", "states", "status", "raw", "word"),
    [
        ({"fulfillment": {"state": "SHIPPED"}}, "SHIPPED=handed_to_carrier", "handed_to_carrier", None, "SHIPPED"),
        ({"state": "Ready"}, "x=billing, ready = packed", "packed", None, "Ready"),
        ({"fulfillment": {"state": "READY"}, "state": "SENT"}, "", "UNKNOWN", "READY", "READY"),
        ({"fulfillment": {"state": ""}, "state": "SENT"}, "", "UNKNOWN", "SENT", "SENT"),
        ({"fulfillment": "none", "state": "delivered"}, "", "delivered", None, "delivered"),
    ],
)
def test_the_state_of_a_fulfilment_is_a_word_of_the_option_s_table(
    data: dict[str, Any], states: str, status: str, raw: str | None, word: str
) -> None:
    profile = load_profile(PHOTON, {"states": states} if states else {})

    found = [event for event in events(profile, order("fulfillment", **data)) if event.type != "other.reported"]
    for event, fill in zip(found, ("fil_1", "fil_3"), strict=True):
        value = event.value
        assert (value["fulfillment_status"], value["raw_fulfillment_status"]) == (status, raw)
        assert (value["raw_status"], value["queue_id"]) == (word, fill)


NO_PRESCRIPTIONS: tuple[object, ...] = (None, [], {}, [7], [{"id": "fil_1"}], [{"prescription": None}])


def test_a_fill_needs_an_id_only_where_that_is_told() -> None:
    assert len(events(PHOTON, order("placed", fills=[{"prescription": {"id": "rx_1"}}]))) == 1


@pytest.mark.parametrize(
    ("profile", "body", "detail", "field", "key"),
    [
        *(
            (DIGITALRX, line, detail, field, None)
            for line, detail, field in (
                ({}, "no_key", "/QueueID"),
                ({"StoreID": "1", "QueueID": ""}, "no_key", "/QueueID"),
                ({"QueueID": " 7"}, "bad_key", "/QueueID"),
                ({"queue_id": 7.0}, "bad_key", "/queue_id"),
                ({"QueueID": True}, "bad_key", "/QueueID"),
                ({"QueueID": "7", "StoreID": "a b"}, "bad_key", "/StoreID"),
                ({"QueueID": "7" * 127}, "bad_key", "/QueueID"),
                ({"QueueID": "7%3A"}, "bad_key", "/QueueID"),
            )
        ),
        *(
            (PHOTON, order("fulfillment", fulfillment={"state": state}), detail, "/data/fulfillment/state", "ph:rx_1")
            for state, detail in ((None, "missing_field"), (7, "wrong_type"), ({}, "wrong_type"))
        ),
        *(
            (PHOTON, order("placed", fills=fills), "no_key", "/data/fills/*/prescription/id", None)
            for fills in NO_PRESCRIPTIONS
        ),
        (
            *(PHOTON, order("completed", fills=[{"prescription": {"id": "rx_1"}}])),
            *("missing_field", "/data/fills/*/id", "ph:rx_1"),
        ),
    ],
)
def test_a_body_that_lacks_what_an_event_needs_parks(
    profile: str, body: dict[str, Any], detail: str, field: str, key: str | None
) -> None:
    assert push(profile, body) == ParkReason("unusable", detail, field, key)


def test_another_event_of_an_order_is_reported_of_each_prescription() -> None:
    found = events(PHOTON, order("created"))

    assert [(event.id, event.type, event.key) for event in found] == [
        ("ce_1/1", "other.reported", "ph:rx_1"),
        ("ce_1/2", "other.reported", "acct_dev"),
        ("ce_1/3", "other.reported", "ph:rx_3"),
    ]
    assert {event.value["reported_type"] for event in found} == {"photon:order:created"}
    assert [event.value["account_id"] for event in found] == ["ph:org_1", "acct_dev", "ph:org_1"]


@pytest.mark.parametrize("kind", ["depleted", "expired"])
def test_another_event_of_a_prescription_is_reported_of_it(kind: str) -> None:
    (event,) = events(PHOTON, prescription() | {"type": f"photon:prescription:{kind}"})

    assert (event.id, event.type, event.key) == ("ce_1/1", "other.reported", "ph:rx_1")
    assert (event.value["reported_type"], event.value["account_id"]) == (f"photon:prescription:{kind}", "ph:org_1")
    assert event.value["extensions"] == ENVELOPE | {"/data/externalId": '"pon_1"'}


@pytest.mark.parametrize("kind", ["photon:order:created", "photon:prescription:expired", "photon:patient:updated"])
def test_an_event_without_a_prescription_is_reported_of_its_account(kind: str) -> None:
    (event,) = events(PHOTON, order("x", fills=[FILLS[1]], id=None) | {"type": kind})

    assert (event.id, event.key, event.value["prescription_id"]) == ("ce_1/1", "acct_dev", None)
    assert event.value["extensions"]["/source"] == '"org:org_1"'  # type: ignore[index]
    assert '"fil_2"' in str(event.value["extensions"])


@pytest.mark.parametrize(
    ("profile", "body", "field", "key"),
    [
        (DOSESPOT, result(4, ClinicId=None), "/Data/ClinicId", "ds:7"),
        (PHOTON, prescription() | {"source": None}, "/source", "ph:rx_1"),
    ],
)
def test_where_a_body_names_no_account_that_of_the_option_counts_or_it_parks(
    profile: str, body: dict[str, Any], field: str, key: str
) -> None:
    assert events(profile, body)[0].value["account_id"] == "acct_dev"
    assert push(load_profile(profile), body) == ParkReason("unusable", "missing_field", field, key)
