"""The flat push of DigitalRX: names and types drift, the word or the first sign is the status."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.profile import Mapped
from tests.profile_properties import assert_writable, opcodes_of
from tests.unit.profile_documents import RECEIVED_AT
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


def test_the_time_is_that_of_receipt_and_nothing_of_the_body() -> None:
    outcome = outcome_of(sample("p05"))

    assert {event.occurred_at for event in outcome.events} == {RECEIVED_AT}
    assert "time_of_receipt" in outcome.flags


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


def test_another_word_is_kept_beside_unknown() -> None:
    (event,) = events(PROFILE, LINE | {"RxStatus": "QUARANTINE"})

    assert said(event) == {
        "queue_id": "2",
        "fulfillment_status": "UNKNOWN",
        "raw_fulfillment_status": "QUARANTINE",
        "raw_status": "QUARANTINE",
    }


def test_the_first_word_that_says_something_counts() -> None:
    assert status_of(Statuswf=" ", Status=None, RxStatus="Packed", new_status="Shipped") == ("packed", "Packed")
    assert status_of(RxStatus="Packed", Statuswf="TYPED") == ("in_progress", "TYPED")


def test_a_status_that_is_no_word_is_passed_over_and_kept() -> None:
    outcome = outcome_of(LINE | {"Statuswf": {"code": 7}, "RxStatus": "Packed"})

    assert outcome.events[0].value["fulfillment_status"] == "packed"
    assert outcome.events[0].value["extensions"] == {"/Statuswf": '{"code":7}'}
    assert "field_unfit" in outcome.flags


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


def test_a_tracking_number_is_a_shipment_with_its_planned_day() -> None:
    fulfillment, shipment = events(PROFILE, sample("p04"), id="dlv_1")

    assert fulfillment.value["fulfillment_status"] == "handed_to_carrier"
    assert (shipment.id, shipment.type, shipment.key) == ("dlv_1/2", "shipment.status_changed", KEY)
    assert said(shipment) == {
        "carrier": "ups",
        "tracking_number": "1Z999AA10123456784",
        "shipment_status": "label_created",
        "estimated_delivery": date(2026, 9, 18),
    }


def test_a_delivery_has_its_time() -> None:
    fulfillment, shipment = events(PROFILE, sample("p05"))

    assert (fulfillment.value["fulfillment_status"], shipment.value["shipment_status"]) == ("delivered", "delivered")
    assert shipment.value["delivered_at"] == datetime(2026, 9, 18, 17, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("9/18/2026", datetime(2026, 9, 18, 5, tzinfo=UTC)),
        ("9/18/2026 5:22 PM", datetime(2026, 9, 18, 22, 22, tzinfo=UTC)),
        ("12/8/2026 12:05:07 am", datetime(2026, 12, 8, 6, 5, 7, tzinfo=UTC)),
        ("2026-09-18T17:22:00", datetime(2026, 9, 18, 22, 22, tzinfo=UTC)),
        ("2026-09-18", datetime(2026, 9, 18, 5, tzinfo=UTC)),
    ],
)
def test_a_date_without_a_zone_is_of_the_zone_of_the_option(text: str, instant: datetime) -> None:
    outcome = outcome_of(LINE | {"Status": "Delivered", "TrackingNumber": "1", "DeliveredDate": text})

    assert outcome.events[1].value["delivered_at"] == instant
    assert "local_time" in outcome.flags


def test_the_zone_is_an_option() -> None:
    profile = load_profile(PROFILE, {"account_id": "a", "zone": "America/New_York"})
    body = LINE | {"Status": "Delivered", "TrackingNumber": "1", "DeliveredDate": "9/18/2026"}

    assert events(profile, body)[1].value["delivered_at"] == datetime(2026, 9, 18, 4, tzinfo=UTC)


@pytest.mark.parametrize("text", ["soon", "13/40/2026", "9/18/2026 25:00", "9/18/2026 13:00 PM", "0/0/0000", 7, {}])
def test_a_date_that_is_none_is_kept_and_parks_nothing(text: object) -> None:
    outcome = outcome_of(
        LINE | {"Status": "Delivered", "TrackingNumber": "1", "DeliveredDate": text, "DeliveryDate": text}
    )

    assert outcome.events[1].value["delivered_at"] is None
    assert outcome.events[0].value["extensions"] == {
        "/DeliveredDate": json.dumps(text),
        "/DeliveryDate": json.dumps(text),
    }
    assert "field_unfit" in outcome.flags


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


def test_a_dead_reject_says_that_it_is_one() -> None:
    value = events(PROFILE, sample("p07"))[0].value

    assert (value["fulfillment_status"], value["active"], value["raw_status"]) == ("rejected", False, "RPH REJECT")


def test_a_field_that_does_not_fit_stays_out_and_is_kept() -> None:
    """A whole record is not parked for a price."""
    unfit = {"Active_Rx": "maybe", "PatPay": "$15", "RxNumber": {"a": 1}, "LotNumber": 1.5}
    outcome = outcome_of(LINE | unfit)

    assert said(outcome.events[0]) == {"queue_id": "2", "fulfillment_status": "received"}
    assert outcome.events[0].value["extensions"] == {
        f"/{name}": json.dumps(value, separators=(",", ":")) for name, value in unfit.items()
    }
    assert "field_unfit" in outcome.flags


def test_billing_is_read_in_any_case_and_another_word_kept() -> None:
    assert said(events(PROFILE, LINE | {"BillingStatus": "Billed"})[0])["billing_status"] == "billed"
    value = said(events(PROFILE, LINE | {"BillingStatus": "Comped"})[0])

    assert (value["billing_status"], value["raw_billing_status"]) == ("UNKNOWN", "Comped")


def test_a_short_push_has_the_account_of_the_option_and_a_key_without_a_store() -> None:
    fulfillment, shipment = events(PROFILE, sample("p08"))

    assert (fulfillment.key, shipment.key) == ("q:9000471", "q:9000471")
    assert fulfillment.value["account_id"] == "acct_dev"
    assert fulfillment.value["raw_status"] == "shipped"


@pytest.mark.parametrize("name", ["QueueID", "queue_id", "queueId", "QUEUEID", "Queue_Id"])
def test_names_are_found_in_any_case(name: str) -> None:
    (event,) = events(PROFILE, {name: 7, "STOREID": "1", "rxstatus": "Packed", "RXNUMBER": 12})

    assert event.key == "q:1:7"
    assert said(event) == {
        "queue_id": "7",
        "pharmacy_rx_number": "12",
        "fulfillment_status": "packed",
        "raw_status": "Packed",
    }


def test_of_two_spellings_the_first_that_says_something_counts_and_the_other_is_kept() -> None:
    outcome = outcome_of(LINE | {"RxStatus": "", "rxStatus": "Packed", "RXSTATUS": "Shipped"})

    (event,) = outcome.events
    assert event.value["fulfillment_status"] == "packed"
    assert event.value["extensions"] == {"/RxStatus": '""', "/RXSTATUS": '"Shipped"'}
    assert "name_ambiguous" in outcome.flags


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


def test_all_else_is_kept_at_the_highest_pointer_without_nulls() -> None:
    extensions = events(PROFILE, sample("p01"))[0].value["extensions"]

    assert isinstance(extensions, dict)
    assert extensions["/DrugName"] == '"Semaglutide 2.5mg/mL (2mL)"'
    assert extensions["/Doctor"] == '{"DoctorName":"Adaeze Okafor","DoctorNpi":"1999999901"}'
    assert extensions["/Patient"].startswith('{"PatientName":"Marisol Quintero",')
    assert not {"/StoreID", "/QueueID", "/RxNumber", "/PatCopay", "/Notes"} & set(extensions)


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


def test_an_array_of_one_line_is_that_line() -> None:
    outcome = outcome_of([LIVE])

    assert outcome.events[0].key == "q:7"
    assert "array_chosen" not in outcome.flags


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        ([], "no_key"),
        ([{}], "no_key"),
        ([LIVE, LIVE | {"QueueID": 8}], "wrong_type"),
        ([LIVE, {}], "wrong_type"),
        ([LIVE, 7], "wrong_type"),
    ],
)
def test_lines_of_several_queue_ids_park(lines: list[Any], detail: str) -> None:
    assert push(PROFILE, lines) == ParkReason("unusable", detail, "/*/QueueID")


@pytest.mark.parametrize("name", ["p01", "p03", "p04", "p05", "p07", "p08"])
def test_every_event_fills_its_record(name: str) -> None:
    for event in events(PROFILE, sample(name)):
        assert_writable(event)
