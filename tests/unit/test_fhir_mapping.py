"""FHIR resources of events: every sample matches its golden file, in any order and with repeats."""

import random
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import orjson
import pytest

from bridge.contract.common import Medication, Prescriber
from bridge.errors import PermanentError
from bridge.event import Event
from consumers.fhir.bundle import foreign
from consumers.fhir.elements import NCIT, demand_text, instant, quantity
from consumers.fhir.mapping import Resource, resources, targets, withdrawn
from consumers.lifecycle.facts import blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.whole import note_whole
from consumers.testing import an_event
from tests.fhir.told import GOLDEN, NAMING, documents, golden_of, of_orders, samples, told
from tests.incomplete import incomplete_events
from tests.prescriptions import (
    START,
    a_fact,
    cancel_answered,
    cancel_asked,
    created,
    failed,
    filled,
    processed,
    renewal_answered,
    renewal_asked,
    renewal_closed,
    sent,
    shipped,
    worked_on,
)

EVENTS = dict(samples())
REVIEWED = [name for name in EVENTS if "huge" not in name]
ORDERS = 50


def medication(**fields: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(Medication.model_fields),
        "description": "lisinopril 10 mg oral tablet",
        "quantity": Decimal(30),
        "quantity_unit": "C48542",
        "refills": 3,
        "sig": "Take one tablet by mouth every morning",
        "substitution_allowed": True,
        "written_date": date(2026, 9, 14),
        **fields,
    }


def statuses(*events: Event) -> str:
    """Intent of a request, code of a task, or kind of anything else, and the status of each."""
    found = []
    for each in told(events):
        kind = each["resourceType"]
        assert "subject" in each or kind not in {"Flag", "MedicationRequest"}  # required in R4
        match kind:
            case "Provenance":
                continue
            case "MedicationRequest":
                kind = each["intent"]
            case "Task":
                kind = each["code"]["coding"][0]["code"]
            case "MedicationDispense":
                kind = "dispense"
        found.append(f"{kind} {each['status']}")
    return ", ".join(found)


def one(kind: str, *events: Event) -> dict[str, Any]:
    (found,) = [each for each in told(events) if each["resourceType"] == kind]
    return found


@pytest.mark.parametrize("name", REVIEWED)
def test_a_sample_comes_to_what_was_reviewed(name: str) -> None:
    """After a change that is meant: `python -m tests.fhir.told`, and read what the files say now."""
    assert golden_of(EVENTS[name]) == (GOLDEN / f"{name}.json").read_text()
    # All of it is ours: an element without a value any more is removed.
    ours = [each for each in told(EVENTS[name]) if each["resourceType"] != "Provenance"]
    assert [foreign({**each, "meta": {}}, NAMING) for each in ours] == [{}] * len(ours)


def test_records_that_hold_only_names_are_written_without_the_rest() -> None:
    found = told(list(incomplete_events()))

    (order,) = [each for each in found if each["resourceType"] == "MedicationRequest" and each["intent"] == "order"]
    assert order["medicationCodeableConcept"] == {"text": "lisinopril 10 mg"}
    assert order["subject"] == {"type": "Patient", "display": "Quintero"}
    assert order["requester"] == {"type": "Practitioner", "display": "Okafor"}
    assert order["dispenseRequest"] == {"performer": {"type": "Organization", "display": "Maple Street Pharmacy"}}
    assert not {"authoredOn", "dosageInstruction", "substitution"} & order.keys()


@pytest.mark.parametrize("name", EVENTS)
def test_no_order_and_no_repetition_leaves_a_trace(name: str) -> None:
    """The document is stored and read again after each event, as the consumer does."""
    events, rng = of_orders(EVENTS[name]), random.Random(name)  # noqa: S311 - an order of arrival, not keys
    expected = {key: resources(key, document, NAMING) for key, document in documents(events).items()}
    for _ in range(ORDERS):
        facts: dict[str, bytes] = {}
        for event in rng.sample(2 * events, k=2 * len(events)):
            document = orjson.loads(facts.get(event.key, orjson.dumps(blank())))
            apply(document, event, note=note_whole)
            facts[event.key] = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)

        assert {key: resources(key, orjson.loads(stored), NAMING) for key, stored in facts.items()} == expected


A_CANCEL = cancel_asked(1, request_id="c", scope="all")
A_RENEWAL = renewal_asked(0, request_id="r")
APPROVED = cancel_answered(2, request_id="c", decision="approved")
REFUSED = cancel_answered(2, request_id="c", decision="denied")
REST = cancel_asked(3, request_id="d", scope="remaining_refills")
REST_APPROVED, REST_REFUSED = (cancel_answered(4, request_id="d", decision=each) for each in ("approved", "denied"))
CLOSED = renewal_closed(2, request_id="r", reason="expired")
FAILED_LATER = failed(2, retryable=False, relates_to_message_id="later")


UNSIGNED = a_fact("epcs.signing_failed", 1, failure="locked_out")


def decided(decision: str) -> Event:
    return renewal_answered(1, request_id="r", decision=decision)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([created(0)], "order draft, fulfill requested"),
        ([a_fact("prescription.updated", 0, changed_fields=[])], "order unknown"),
        ([sent(0), processed(1)], "order active, fulfill accepted"),
        ([sent(0), failed(1, retryable=True)], "order active, fulfill on-hold"),
        ([sent(0), failed(1, retryable=False)], "order on-hold, fulfill failed"),
        ([sent(0), failed(1, retryable=True), FAILED_LATER], "order on-hold, fulfill failed"),
        ([failed(0, retryable=False), processed(1)], "order active, fulfill accepted"),
        ([created(0), a_fact("epcs.signed", 1, factors=[])], "order active, fulfill requested"),
        ([created(0), UNSIGNED, a_fact("epcs.signed", 2, factors=[])], "order active, fulfill requested"),
        ([created(0), UNSIGNED], "order draft, fulfill on-hold"),
        ([created(0), A_CANCEL], "order draft, fulfill requested, abort requested"),
        ([sent(0), A_CANCEL, APPROVED], "order cancelled, fulfill cancelled, abort completed"),
        ([cancel_asked(1, request_id="c", scope="remaining_refills"), APPROVED], "order stopped, abort completed"),
        ([APPROVED], "order stopped, abort completed"),
        ([cancel_answered(2, request_id="c", decision="denied")], "order unknown, abort rejected"),
        ([cancel_answered(2, request_id="c", decision="no_response")], "order unknown, abort failed"),
        ([cancel_answered(2, request_id="c", decision="UNKNOWN")], "order unknown"),
        ([A_CANCEL, REFUSED, REST, REST_APPROVED], "order stopped, abort rejected, abort completed"),
        ([A_RENEWAL], "order unknown, proposal active, approve requested"),
        ([A_RENEWAL, decided("approved")], "order unknown, proposal completed, approve completed"),
        ([A_RENEWAL, decided("denied")], "order unknown, proposal cancelled, approve rejected"),
        ([A_RENEWAL, decided("pending")], "order unknown, proposal active, approve on-hold"),
        ([A_RENEWAL, decided("replace")], "order stopped, proposal completed, approve completed"),
        ([A_RENEWAL, CLOSED], "order unknown, proposal cancelled, approve cancelled"),
        ([A_RENEWAL, decided("approved"), CLOSED], "order unknown, proposal completed, approve completed"),
        ([A_RENEWAL, decided("pending"), CLOSED], "order unknown, proposal cancelled, approve cancelled"),
        ([sent(0), filled(1, "dispensed")], "order active, fulfill completed, dispense completed"),
        ([sent(0), filled(1, "partially_dispensed")], "order active, fulfill requested, dispense completed"),
        ([sent(0), worked_on(1, "delivered")], "order active, fulfill completed, dispense completed"),
        ([filled(0, "not_dispensed")], "order active, dispense cancelled"),
        ([filled(0, "transferred")], "order active, dispense stopped"),
        ([filled(0, "UNKNOWN")], "order unknown"),
        ([worked_on(0, "packed")], "order active, dispense preparation"),
        ([worked_on(0, "handed_to_carrier"), shipped(1, "in_transit")], "order active, dispense in-progress"),
        (
            [sent(0), worked_on(1, "handed_to_carrier"), shipped(2, "delivered")],
            "order active, fulfill completed, dispense completed",
        ),
        ([CLOSED], "order unknown, approve cancelled"),
        ([worked_on(0, "rejected", active=False)], "order stopped, dispense declined"),
        (
            [worked_on(0, "rejected", "q1", active=False), worked_on(1, "packed", "q2")],
            "order active, dispense declined, dispense preparation",
        ),
        (
            [sent(0), worked_on(1, "rejected", active=False), A_CANCEL],
            "order stopped, fulfill rejected, abort requested, dispense declined",
        ),
        (
            [sent(0), A_RENEWAL, decided("replace")],
            "order stopped, proposal completed, fulfill cancelled, approve completed",
        ),
        ([worked_on(0, "rejected", active=True)], "order unknown"),
        (
            [A_CANCEL, APPROVED, filled(3, "dispensed")],
            "order cancelled, abort completed, dispense completed, Flag active",
        ),
        (
            [sent(0), A_CANCEL, APPROVED, REST, REST_REFUSED, filled(5, "dispensed")],
            "order cancelled, fulfill completed, abort completed, abort rejected, dispense completed, Flag active",
        ),
        (
            [A_CANCEL, APPROVED, filled(3, "dispensed"), filled(4, "not_dispensed")],
            "order cancelled, abort completed, dispense cancelled",
        ),
    ],
)
def test_facts_and_their_status(events: list[Event], expected: str) -> None:
    assert statuses(*events) == expected
    assert statuses(*reversed(events)) == expected


def order_status(*events: Event) -> str:
    (key,) = {event.key for event in events}
    document = documents(events)[key]
    return str(resources(key, document, NAMING, complete=True)[0].elements["status"])


ORDERED = created(0, medication=medication(refills=1))
FILLS = [filled(2, "dispensed", 0), filled(3, "dispensed", 1)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([ORDERED, *FILLS], "completed"),
        ([created(0, medication=medication(refills=0)), FILLS[0]], "completed"),
        ([sent(1), *FILLS], "active"),
        ([created(0, medication=medication(refills=None)), *FILLS], "active"),
        ([ORDERED, FILLS[0]], "active"),
        ([ORDERED, FILLS[0], filled(3, "dispensed", 0)], "active"),
        ([ORDERED, FILLS[0], filled(3, "partially_dispensed", 1)], "active"),
        ([ORDERED, *FILLS, filled(4, "not_dispensed", 1)], "active"),
        ([ORDERED, *FILLS, decided("approved")], "active"),
        ([ORDERED, *FILLS, a_fact("change.responded", 4, request_id="x", decision="approved")], "active"),
        ([ORDERED, *FILLS, a_fact("change.responded", 4, request_id="x", decision="approved_with_changes")], "active"),
        ([ORDERED, *FILLS, decided("denied")], "completed"),
        ([ORDERED, *FILLS, decided("replace")], "stopped"),
        ([ORDERED, *FILLS, worked_on(4, "rejected", active=False), A_CANCEL], "stopped"),
        ([ORDERED, *FILLS, A_CANCEL, APPROVED], "cancelled"),
        ([ORDERED, *FILLS, sent(4), failed(5, retryable=False)], "on-hold"),
    ],
)
def test_an_order_is_completed_once_all_its_fills_are_dispensed(events: list[Event], expected: str) -> None:
    """Only where a site asks for it, since no event says so."""
    assert order_status(*events) == expected
    assert order_status(*reversed(events)) == expected
    assert "order completed" not in statuses(*events)


def test_what_left_the_pharmacy_is_never_said_to_be_what_was_ordered() -> None:
    """Another product may have been handed out; only the event about the fill says which."""
    ordered = an_event("prescription.created", medication=medication(description="Lipitor 20 mg"))
    fill = partial(an_event, "fill.status_changed", fill_number=0)
    unsaid, held = fill(fill_status="dispensed"), fill(fill_status="not_dispensed")
    away = an_event("fulfillment.status_changed", fulfillment_status="handed_to_carrier")
    other = medication(description="atorvastatin 20 mg")

    for event in (unsaid, away):
        assert "text" not in one("MedicationDispense", ordered, event)["medicationCodeableConcept"]
    for word in ("dispensed", "not_dispensed"):
        said = one("MedicationDispense", ordered, fill(fill_status=word, medication_dispensed=other))
        assert said["medicationCodeableConcept"]["text"] == "atorvastatin 20 mg"
    assert (
        one("MedicationDispense", fill(fill_status="transferred"))["statusReasonCodeableConcept"]["text"]
        == "Transferred"
    )
    assert one("MedicationDispense", ordered, held)["medicationCodeableConcept"]["text"] == "Lipitor 20 mg"


@pytest.mark.parametrize(("number", "act"), [(0, None), (1, "RFC")])
def test_a_fill_with_an_id_is_a_refill_only_if_its_number_tells_so(number: int, act: str | None) -> None:
    fields: dict[str, Any] = {"fill_id": "f_1", "fill_number": number, "fill_status": "dispensed"}
    found = one("MedicationDispense", an_event("fill.status_changed", **fields))

    assert found.get("type", {"coding": [{"code": None}]})["coding"][0]["code"] == act
    assert found["identifier"][0]["value"] == "rx_1/f_1"


def dispensed_lines(*events: Event) -> dict[str, tuple[str, str]]:
    """Tracking number and time of the handing over of each line; empty where there is none."""
    found = {}
    for each in told(events):
        if each["resourceType"] == "MedicationDispense":
            had = {part["system"].removeprefix("urn:drx:"): part["value"] for part in each["identifier"]}
            found[had["queue"]] = (had.get("tracking-number", ""), each.get("whenHandedOver", ""))
    return found


def test_a_refill_does_not_take_the_parcel_of_the_fill_before() -> None:
    days = 24 * 60
    first = worked_on(0, "handed_to_carrier", "q1")
    arrived = shipped(2 * days, "delivered", "T1", delivered_at=START + timedelta(days=2))
    q1 = ("T1", "2026-09-16T15:00:00Z")
    assert dispensed_lines(first, arrived, worked_on(30 * days, "received", "q2")) == {"q1": q1, "q2": ("", "")}
    again = worked_on(31 * days, "handed_to_carrier", "q2")
    assert dispensed_lines(first, arrived, again) == {"q1": q1, "q2": ("", "")}
    moved = shipped(32 * days, "in_transit", "T2")
    assert dispensed_lines(first, arrived, again, moved) == {"q1": q1, "q2": ("T2", "")}


@pytest.mark.parametrize(
    ("unit", "expected"), [(" C48542 ", {"system": NCIT, "code": "C48542"}), ("C4x", {"unit": "C4x"}), (" ", {})]
)
def test_an_amount_has_a_unit_or_a_code_of_one(unit: str, expected: dict[str, str]) -> None:
    assert quantity("1.50", unit) == {"value": 1.5, **expected}


@pytest.mark.parametrize("step", ["handed_to_carrier", "delivered"])
def test_a_parcel_that_left_later_does_not_undo_a_delivery(step: str) -> None:
    left = worked_on(0, step, "q1")
    moved = [shipped(1, "in_transit", "T9"), shipped(2, "in_transit", "T1")]
    assert dispensed_lines(left, *moved) == {"q1": ("T1", "")}
    arrived = shipped(1, "delivered", "T1", delivered_at=START + timedelta(days=2))

    moved = [shipped(2, "in_transit", "T2"), shipped(3, "in_transit", "T1")]
    assert dispensed_lines(left, arrived, *moved) == {"q1": ("T1", "2026-09-16T15:00:00Z")}


@pytest.mark.parametrize(
    "event",
    [
        an_event("prescription.created", medication=medication(refills=-1)),
        an_event("prescription.created", medication=medication(days_supply=-1)),
        an_event("renewal.requested", refills_requested=-1),
        an_event("renewal.responded", decision="approved", refills_approved=-1),
    ],
)
def test_a_count_below_zero_is_refused_and_not_made_another(event: Event) -> None:
    with pytest.raises(PermanentError, match=r"^negative_count$"):
        told([event])


@pytest.mark.parametrize("text", ["\0", "a\x1fb", {"a": ["\x07"]}, [{"b": {"c": "\x0b"}}]])
def test_a_control_character_is_refused(text: Any) -> None:
    with pytest.raises(PermanentError, match=r"^control_character$"):
        demand_text(text)


PRESCRIBER = {**dict.fromkeys(Prescriber.model_fields), "id": "p", "npi": "1234567893"}


def changed(event: Event, *before: Event) -> list[str]:
    """Types of what an event changes after others."""
    known, told_now = documents(before).get("rx_1"), documents([*before, event])["rx_1"]
    after = resources("rx_1", told_now, NAMING)
    ids = targets(event, [] if known is None else resources("rx_1", known, NAMING), after)
    return sorted(each.type for each in after if each.id in ids)


@pytest.mark.parametrize(
    ("event", "before", "expected"),
    [
        (created(0), [], ["MedicationRequest", "Task"]),
        (processed(2), [created(0), sent(1)], ["Task"]),
        (worked_on(3, "packed"), [created(0), sent(1)], ["MedicationDispense"]),
        (filled(3, "dispensed"), [created(0), sent(1)], ["MedicationDispense", "Task"]),
        (decided("denied"), [created(0), A_RENEWAL], ["MedicationRequest", "Task"]),
        (created(0), [created(1)], []),
        (a_fact("epcs.signed", 2, factors=[], prescriber=PRESCRIBER), [sent(1)], ["MedicationRequest"]),
    ],
)
def test_the_targets_of_a_provenance_are_what_its_event_changes(
    event: Event, before: list[Event], expected: list[str]
) -> None:
    """A signature is of the order, also where that was known to be active."""
    assert changed(event, *before) == expected


def test_what_is_no_longer_so_is_withdrawn_and_not_deleted() -> None:
    statuses = {"Flag": "inactive", "MedicationRequest": "cancelled"}
    for kind, status in statuses.items():
        assert withdrawn(kind, "drx-1") == Resource(kind, "drx-1", {"status": status}, partial=True)
    assert withdrawn("Task", "drx-1") is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-09-14T15:00:02.110000Z", "2026-09-14T15:00:02.110Z"),
        ("2026-09-14T15:00:02.000000Z", "2026-09-14T15:00:02Z"),
        ("2026-09-14T15:00:02Z", "2026-09-14T15:00:02Z"),
        ("2026-09-14T15:00:02.000900Z", "2026-09-14T15:00:02.000Z"),
    ],
)
def test_instants_have_milliseconds(given: str, expected: str) -> None:
    assert instant(given) == expected
