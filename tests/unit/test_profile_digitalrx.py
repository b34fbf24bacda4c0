"""The flat push of DigitalRX: names and types drift, the word or the first sign is the status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.profile import Mapped
from tests.profile_properties import opcodes_of
from tests.unit.vendor_documents import events, push, said, sample

PROFILE = "digitalrx_pharmacy"
KEY = "q:999001:9000471"
LINE = {"StoreID": "1", "QueueID": "2"}


def status_of(**members: Any) -> tuple[Any, Any]:
    value = events(PROFILE, LINE | members)[0].value
    return value["fulfillment_status"], value["raw_status"]


def outcome_of(body: Any) -> Mapped:
    outcome = push(PROFILE, body)
    assert isinstance(outcome, Mapped), outcome
    return outcome


def test_a_push_without_a_word_or_a_sign_is_received() -> None:
    (event,) = events(PROFILE, sample("p01"), id="dlv_1")

    assert (event.id, event.type, event.key) == ("dlv_1/1", "fulfillment.status_changed", KEY)
    assert (event.value["account_id"], event.value["prescription_id"]) == ("q:999001", KEY)
    assert said(event) == {
        "queue_id": "9000471",
        "pharmacy_rx_number": "700273",
        "fulfillment_status": "received",
        "patient_pay": Decimal("15.00"),
    }


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
    _, shipment = events(PROFILE, LINE | unset | {"TrackingNumber": "1", "Status": "Delivered"})
    assert shipment.value["delivered_at"] is None


def test_the_zone_is_an_option() -> None:
    profile = load_profile(PROFILE, {"account_id": "a", "zone": "America/New_York"})
    body = LINE | {"Status": "Delivered", "TrackingNumber": "1", "DeliveredDate": "9/18/2026"}

    assert events(profile, body)[1].value["delivered_at"] == datetime(2026, 9, 18, 4, tzinfo=UTC)


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
    value = events(PROFILE, LINE | {"TrackingNumber": number})[1].value

    assert (value["carrier"], value["tracking_number"]) == (carrier, str(number))


@pytest.mark.parametrize(
    ("value", "active"),
    [("0", False), (0, False), (False, False), ("No", False), ("1", True), (1, True), ("YES", True), (True, True)],
)
def test_a_truth_is_read_in_any_spelling(value: object, active: object) -> None:
    assert events(PROFILE, LINE | {"Active_Rx": value})[0].value["active"] is active
    assert events(PROFILE, LINE | {"ActiveRx": value})[0].value["active"] is active


def test_billing_is_read_in_any_case_and_another_word_kept() -> None:
    assert said(events(PROFILE, LINE | {"BillingStatus": "Billed"})[0])["billing_status"] == "billed"
    value = said(events(PROFILE, LINE | {"BillingStatus": "Comped"})[0])

    assert (value["billing_status"], value["raw_billing_status"]) == ("UNKNOWN", "Comped")


@pytest.mark.parametrize(
    ("line", "detail", "field"),
    [
        ({}, "no_key", "/QueueID"),
        ({"StoreID": "1", "QueueID": ""}, "no_key", "/QueueID"),
        ({"QueueID": " 7"}, "bad_key", "/QueueID"),
        ({"queue_id": 7.0}, "bad_key", "/queue_id"),
        ({"QueueID": True}, "bad_key", "/QueueID"),
        ({"QueueID": "7", "StoreID": "a b"}, "bad_key", "/StoreID"),
        ({"QueueID": "7" * 127}, "bad_key", "/QueueID"),
        ({"QueueID": "7%3A"}, "bad_key", "/QueueID"),
    ],
)
def test_a_push_without_a_key_parks(line: dict[str, Any], detail: str, field: str) -> None:
    assert push(PROFILE, line) == ParkReason("unusable", detail, field)


def test_a_colon_within_an_id_is_no_bound_of_the_key() -> None:
    assert events(PROFILE, {"StoreID": "1:2", "QueueID": "3"})[0].key == "q:1%3A2:3"
    assert events(PROFILE, {"StoreID": "1", "QueueID": "2:3"})[0].key == "q:1:2%3A3"


def test_what_nobody_should_hold_is_in_no_event() -> None:
    secret = "CANARY-7"
    patient = dict.fromkeys(("SSN", "ssn", "EmployerName", "EMPLOYERPHONE", "DateOfInjury"), secret)
    body = LINE | {
        "Patient": patient | {"PatientName": "kept"},
        "INSURANCE": {"InsuredName": secret},
        "TrackingNumber": "1",
        "Lines": [{"SSN": secret, "more": "kept"}],
    }

    outcome = push(PROFILE, [body, body | {"Insurance": secret}])

    assert isinstance(outcome, Mapped)
    assert secret not in repr([event.value for event in outcome.events])
    assert repr(outcome.events[0].value).count("kept") == 4


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

    outcome = outcome_of(body)

    assert secret not in repr([event.value for event in outcome.events])
    assert outcome.events[0].value["extensions"] == {"/Patient": '{"PatientName":"kept"}'}


@pytest.mark.parametrize(
    "name",
    [
        *("BusinessName", "BUSINESSNAME", "businessname", "business_name", "AddressNumber", "ClassName", "class_no"),
        *("ProcessName", "Employee", "Sensor", "PassNumber"),
    ],
)
def test_a_name_that_only_looks_like_one_of_these_is_kept(name: str) -> None:
    assert outcome_of(LINE | {name: "kept"}).events[0].value["extensions"] == {f"/{name}": '"kept"'}


@pytest.mark.parametrize("name", ["{long}", "Patient{long}"])
def test_what_is_dropped_below_a_long_name_costs_no_more_than_its_bytes(name: str) -> None:
    """Counted in instructions and in bytes kept: a body twice as long must not take four times the work."""

    def work(size: int) -> tuple[int, int]:
        rows = [{"ssn": 1, "a": 2}] * (size // 40)
        body = json.dumps(LINE | {name.format(long="k" * (size // 2)): rows}).encode()
        kept = repr(outcome_of(body).events[0].value["extensions"])
        return opcodes_of(lambda: push(PROFILE, body)), len(kept)

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
        ([LIVE | {"RxDate": "never"}, LIVE], 1),
    ],
)
def test_of_several_lines_the_one_that_counts_is_chosen(lines: list[dict[str, Any]], chosen: int) -> None:
    outcome = outcome_of(lines)

    (event,) = outcome.events
    assert event.value["raw_status"] == lines[chosen]["Status"]
    assert event.value["pharmacy_rx_number"] == str(lines[chosen]["RxNumber"])
    extensions = event.value["extensions"]
    assert isinstance(extensions, dict)
    assert json.loads(extensions[f"/{1 - chosen}"]) == lines[1 - chosen]
    assert "array_chosen" in outcome.flags
