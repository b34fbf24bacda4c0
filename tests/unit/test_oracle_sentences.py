"""The oracle says what docs/contract.md §6 says: each sentence has a case, told in order, backwards and twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.oracle import states as oracle
from tests.oracle.states import expected_state
from tests.oracle.telling import (
    News,
    bodies,
    cancel,
    cancelled,
    change,
    changed,
    closed,
    failed,
    fill,
    line,
    parcel,
    processed,
    renewal,
    renewed,
    sent,
)

DEAD = line("rejected", active=False)


def case(sentence: str, *story: News, **columns: object) -> Any:
    """Give one case; its story in the true order."""
    return pytest.param(story, columns, id=sentence)


SENTENCES = [
    case(
        "an order can be cancelled and dispensed",
        fill("dispensed"),
        cancel(),
        cancelled("approved"),
        order="cancelled",
        dispense="dispensed",
    ),
    case(
        "a confirmation belongs to the message it relates to",
        sent("m1"),
        sent("theirs"),
        processed("m1"),
        transmission="processed",
    ),
    case(
        "a failure belongs to the message it relates to",
        sent("m1"),
        sent("theirs"),
        failed("m1"),
        transmission="failed",
    ),
    case(
        "a confirmed message is processed even if a failure is newer",
        sent("m1"),
        processed("m1"),
        failed("m1"),
        transmission="processed",
    ),
    case(
        "processed if any attempt is", sent("m1"), processed("m1"), sent("m2"), failed("m2"), transmission="processed"
    ),
    case("else the newest attempt, sent", sent("m1"), failed("m1"), sent("m2"), transmission="sent"),
    case("else the message with the newest fact, failed", sent("m1"), sent("m2"), failed("m1"), transmission="failed"),
    case("a message never seen as sent exists once an answer names it", failed("m1"), transmission="failed"),
    case("messages without an id count as one", sent(None), processed(None), transmission="processed", anomalies=0),
    case(
        "news without an id is of the message without one", failed(None, retryable=False), processed(None), anomalies=1
    ),
    case("an empty id is none", failed("", retryable=False), processed(None), anomalies=1),
    case("and of no other", failed("m1", retryable=False), processed(None), anomalies=0),
    case("a fill implies processed", fill("not_dispensed"), transmission="processed"),
    case("a line implies processed", line("received"), transmission="processed"),
    case("pharmacy news implies nothing where a message is known", sent("m1"), fill("dispensed"), transmission="sent"),
    case("a parcel implies nothing", parcel("in_transit"), transmission="draft"),
    case(
        "without anything it is a draft",
        ("prescription.created", {}),
        renewal("rr1"),
        transmission="draft",
        display="draft",
    ),
    case("active without a cancel", sent("m1"), order="active"),
    case("cancel pending: asked, no answer", cancel(), order="cancel_pending", display="cancel_pending"),
    case("cancelled on an approved answer", cancel(), cancelled("approved"), order="cancelled", display="cancelled"),
    case("cancelled by an answer alone", cancelled("approved"), order="cancelled"),
    case("denied: active again", cancel(), cancelled("denied"), order="active"),
    case("no response: active again", cancel(), cancelled("no_response"), order="active"),
    case(
        "the newest answer of a cancel request decides, approved",
        cancelled("denied"),
        cancelled("approved"),
        order="cancelled",
    ),
    case(
        "the newest answer of a cancel request decides, denied",
        cancelled("approved"),
        cancelled("denied"),
        order="active",
    ),
    case("any cancel request", cancelled("approved", "cx1"), cancelled("denied", "cx2"), order="cancelled"),
    case("a cancel request without any answer", cancelled("denied", "cx1"), cancel("cx2"), order="cancel_pending"),
    case("asked again after its answer: answered", cancel(), cancelled("denied"), cancel(), order="active"),
    case("cancelled before replaced", renewed("r", "replace"), cancelled("approved"), order="cancelled"),
    case("replaced by a renewal", renewed("r", "replace"), order="replaced", display="replaced"),
    case(
        "replaced by an answer with a replacement id",
        changed("c", "approved", replacement_prescription_id="rx_2"),
        order="replaced",
    ),
    case(
        "replaced by a denial with a replacement id",
        renewed("r", "denied_new_rx_to_follow", replacement_prescription_id="rx_2"),
        order="replaced",
    ),
    case("the newest answer stands: not replaced", renewed("r", "replace"), renewed("r", "denied"), order="active"),
    case("replaced before cancel pending", renewed("r", "replace"), cancel(), order="replaced"),
    case("rejected: there are lines and all are", DEAD, order="rejected", display="rejected"),
    case("one line that lives", DEAD, line("packed", "q2"), order="active"),
    case("all of two lines", DEAD, line("rejected", "q2", active=False), order="rejected"),
    case("a line that lives again", DEAD, line("packed"), order="active", fulfillment="packed"),
    case("cancel pending before rejected", DEAD, cancel(), order="cancel_pending"),
    case("an open renewal", renewal("rr2"), renewal("rr1"), change("cr1"), open_requests=["cr1", "rr1", "rr2"]),
    case("an answer before its question", renewed("rr1", "approved"), renewal("rr1"), open_requests=[]),
    case("a closing before its question", closed("rr1"), renewal("rr1"), open_requests=[]),
    case("closed", renewal("rr1"), closed("rr1"), open_requests=[]),
    case("an answer without a question", renewed("rr1", "denied"), open_requests=[]),
    case("a cancel request is no open request", cancel(), open_requests=[]),
    *(
        case("every renewal decision closes", renewal("r"), renewed("r", each), open_requests=[])
        for each in oracle.RENEWAL_DECISIONS
    ),
    *(
        case("every change decision closes", change("c"), changed("c", each), open_requests=[])
        for each in oracle.CHANGE_DECISIONS
    ),
    case(
        "dispense: newest fact wins",
        fill("dispensed"),
        fill("not_dispensed"),
        dispense="not_dispensed",
        display="not_dispensed",
    ),
    case(
        "over all fills: dispensed",
        fill("dispensed"),
        fill("partially_dispensed", 1),
        fill("transferred", 2),
        dispense="dispensed",
    ),
    case(
        "over all fills: partially", fill("partially_dispensed"), fill("transferred", 1), dispense="partially_dispensed"
    ),
    case("over all fills: transferred", fill("transferred"), fill("not_dispensed", 1), dispense="transferred"),
    case("no fill", sent("m1"), dispense="none", fulfillment="none", shipment="none"),
    case("fulfillment: newest over all lines", line("packed", "q1"), line("billing", "q2"), fulfillment="billing"),
    case(
        "a reject that may live is no fact",
        line("packed"),
        line("rejected", active=True),
        fulfillment="packed",
        order="active",
    ),
    case(
        "a reject that says nothing may live",
        line("rejected"),
        fulfillment="none",
        order="active",
        transmission="draft",
    ),
    case(
        "a dead line shows as newest",
        line("packed", "q2"),
        DEAD,
        order="active",
        fulfillment="rejected",
        display="rejected",
    ),
    case(
        "shipment: newest over all parcels",
        parcel("in_transit", "a"),
        parcel("label_created", "b"),
        shipment="label_created",
    ),
    case("delivered is sticky", parcel("delivered"), parcel("exception"), shipment="delivered"),
    case(
        "delivered if any is",
        parcel("delivered", "a"),
        parcel("returned", "b"),
        shipment="delivered",
        display="delivered",
    ),
    case("unknown words move nothing: fill", fill("eaten"), dispense="none", transmission="draft"),
    case("unknown words move nothing: line", line("packed"), line("eaten"), fulfillment="packed"),
    case("unknown words move nothing: parcel", parcel("in_transit"), parcel("eaten"), shipment="in_transit"),
    case(
        "unknown words move nothing: answer",
        renewal("r"),
        renewed("r", "perhaps", replacement_prescription_id="rx_2"),
        open_requests=["r"],
        order="active",
    ),
    case("unknown words move nothing: closing", renewal("r"), closed("r", "perhaps"), open_requests=["r"]),
    case("unknown words move nothing: cancel", cancel(), cancelled("perhaps"), order="cancel_pending"),
    case("display: cancelled before delivered", cancelled("approved"), parcel("delivered"), display="cancelled"),
    case("display: rejected before delivered", DEAD, parcel("delivered"), display="rejected"),
    case("display: delivered before dispensed", parcel("delivered"), fill("dispensed"), display="delivered"),
    *(
        case("display: a fill before a parcel", fill(each), parcel("in_transit"), display=each)
        for each in oracle.FILL_WORDS
        if each != "not_dispensed"
    ),
    case("display: a parcel before a line", parcel("in_transit"), line("packed"), display="in_transit"),
    case("display: a parcel before not dispensed", parcel("in_transit"), fill("not_dispensed"), display="in_transit"),
    case("display: a line before not dispensed", line("packed"), fill("not_dispensed"), display="packed"),
    case("display: not dispensed before cancel pending", fill("not_dispensed"), cancel(), display="not_dispensed"),
    case(
        "display: cancel pending before transmission", sent("m1"), processed("m1"), cancel(), display="cancel_pending"
    ),
    case("display: the transmission state", sent("m1"), failed("m1"), display="failed"),
    *(
        case(
            "a fill later than the approved answer",
            cancelled("approved"),
            fill(each),
            safety=["dispensed_after_cancel"],
        )
        for each in ("dispensed", "partially_dispensed")
    ),
    *(
        case("other fills are safe", cancelled("approved"), fill(each), safety=[])
        for each in ("not_dispensed", "transferred")
    ),
    case("a fill before the answer is safe", cancel(), fill("dispensed"), cancelled("approved"), safety=[]),
    case("a fill after a denial is safe", cancelled("denied"), fill("dispensed"), safety=[]),
    case(
        "the first approved answer counts",
        cancelled("approved", "a"),
        fill("dispensed"),
        cancelled("approved", "b"),
        safety=["dispensed_after_cancel"],
    ),
    case(
        "the newest news of a fill counts", cancelled("approved"), fill("dispensed"), fill("not_dispensed"), safety=[]
    ),
    case(
        "each fill counts",
        cancelled("approved"),
        fill("dispensed", 0),
        fill("not_dispensed", 1),
        safety=["dispensed_after_cancel"],
    ),
    case(
        "processed after a final failure",
        sent("m1"),
        failed("m1", retryable=False),
        processed("m1"),
        anomalies=1,
        transmission="processed",
    ),
    case("processed after a failure that may be tried again", failed("m1"), processed("m1"), anomalies=0),
    case("processed before a final failure", processed("m1"), failed("m1", retryable=False), anomalies=0),
    case(
        "processed both before and after", processed("m1"), failed("m1", retryable=False), processed("m1"), anomalies=1
    ),
    case(
        "failed both before and after",
        failed("m", retryable=False),
        processed("m"),
        failed("m", retryable=False),
        anomalies=1,
    ),
    case("another message may be processed", failed("m1", retryable=False), sent("m2"), processed("m2"), anomalies=0),
    case("a stub of an unknown prescription", parcel("picked_up"), order="active", display="picked_up"),
]


@pytest.mark.parametrize(("story", "columns"), SENTENCES)
def test_a_sentence_of_the_contract(story: Sequence[News], columns: Mapping[str, object]) -> None:
    told = bodies(story)
    for way in (told, told[::-1], told + told):
        state = expected_state(way)

        assert {name: state[name] for name in columns} == columns
