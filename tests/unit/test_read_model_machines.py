"""docs/contract.md §6 by sentences: fills, lines, shipments, requests, the word to display and the safety signals."""

from __future__ import annotations

from itertools import permutations

import pytest

from bridge.event import Event
from tests.prescriptions import (
    cancel_answered,
    cancel_asked,
    change_answered,
    change_asked,
    created,
    filled,
    renewal_answered,
    renewal_asked,
    renewal_closed,
    sent,
    shipped,
    state_of,
    worked_on,
)

DISPENSE: dict[str, tuple[list[Event], str]] = {
    "none": ([created(0)], "none"),
    "newest fact of a fill wins": ([filled(0, "dispensed"), filled(1, "not_dispensed")], "not_dispensed"),
    "dispensed over all fills": (
        [filled(0, "dispensed", 0), filled(1, "partially_dispensed", 1), filled(2, "transferred", 2)],
        "dispensed",
    ),
    "partially over transferred": (
        [filled(0, "partially_dispensed", 1), filled(2, "transferred", 2)],
        "partially_dispensed",
    ),
    "transferred over not dispensed": ([filled(0, "transferred", 1), filled(2, "not_dispensed", 2)], "transferred"),
    "unknown changes nothing": ([filled(0, "dispensed"), filled(1, "UNKNOWN")], "dispensed"),
}

FULFILLMENT: dict[str, tuple[list[Event], str]] = {
    "none": ([created(0)], "none"),
    "the newest over all lines": ([worked_on(3, "packed", "q1"), worked_on(2, "billing", "q2")], "packed"),
    "packed, approved, packed again": (
        [worked_on(0, "packed"), worked_on(1, "approved"), worked_on(2, "packed")],
        "packed",
    ),
    "a transient reject is no fact": ([worked_on(0, "packed"), worked_on(1, "rejected", active=True)], "packed"),
    "a dead line is": ([worked_on(0, "packed"), worked_on(1, "rejected", active=False)], "rejected"),
    "unknown changes nothing": ([worked_on(0, "packed"), worked_on(1, "UNKNOWN")], "packed"),
}

SHIPMENT: dict[str, tuple[list[Event], str]] = {
    "none": ([created(0)], "none"),
    "delivered is sticky": ([shipped(0, "delivered"), shipped(1, "exception")], "delivered"),
    "delivered if any is": ([shipped(0, "delivered", "1ZA"), shipped(1, "in_transit", "1ZB")], "delivered"),
    "the newest over all": ([shipped(1, "exception", "1ZA"), shipped(0, "in_transit", "1ZB")], "exception"),
    "newest fact wins": ([shipped(0, "picked_up"), shipped(1, "in_transit")], "in_transit"),
    "unknown changes nothing": ([shipped(0, "picked_up"), shipped(1, "UNKNOWN")], "picked_up"),
}

OPEN: dict[str, tuple[list[Event], list[str]]] = {
    "none": ([created(0)], []),
    "renewals and changes, sorted": (
        [renewal_asked(0, request_id="r2"), change_asked(1, request_id="x1"), renewal_asked(2, request_id="r1")],
        ["r1", "r2", "x1"],
    ),
    "cancels are none of them": ([cancel_asked(0, request_id="c1")], []),
    "answered": ([renewal_asked(0, request_id="r1"), renewal_answered(1, request_id="r1", decision="denied")], []),
    "every decision closes, pending included": (
        [change_asked(0, request_id="x1"), change_answered(1, request_id="x1", decision="pending")],
        [],
    ),
    "closed": ([renewal_asked(0, request_id="r1"), renewal_closed(1, request_id="r1", reason="expired")], []),
    "a question after its answer arrives answered": (
        [renewal_answered(0, request_id="r1", decision="approved"), renewal_asked(1, request_id="r1")],
        [],
    ),
    "an answer without its question opens nothing": ([renewal_answered(0, request_id="r1", decision="denied")], []),
    "an unknown decision answers nothing": (
        [renewal_asked(0, request_id="r1"), renewal_answered(1, request_id="r1", decision="UNKNOWN")],
        ["r1"],
    ),
    "an unknown reason closes nothing": (
        [renewal_asked(0, request_id="r1"), renewal_closed(1, request_id="r1", reason="UNKNOWN")],
        ["r1"],
    ),
    "an id is one request, whatever kind of answer names it": (
        [renewal_asked(0, request_id="r1"), change_answered(1, request_id="r1", decision="denied")],
        [],
    ),
}

DISPLAY: dict[str, tuple[list[Event], str]] = {
    "cancelled": (
        [cancel_answered(0, request_id="c1", decision="approved"), shipped(1, "delivered"), filled(2, "dispensed")],
        "cancelled",
    ),
    "replaced": ([renewal_answered(0, request_id="r1", decision="replace"), shipped(1, "delivered")], "replaced"),
    "rejected": ([worked_on(0, "rejected", active=False), shipped(1, "delivered")], "rejected"),
    "delivered goes before the fill": ([shipped(0, "delivered"), filled(1, "dispensed")], "delivered"),
    "the fill goes before the way": ([shipped(1, "in_transit"), filled(0, "dispensed")], "dispensed"),
    "partially dispensed": ([shipped(1, "in_transit"), filled(0, "partially_dispensed")], "partially_dispensed"),
    "transferred": ([shipped(1, "in_transit"), filled(0, "transferred")], "transferred"),
    "the shipment goes before the fulfillment": ([shipped(0, "in_transit"), worked_on(1, "packed")], "in_transit"),
    "the fulfillment goes before not dispensed": ([worked_on(0, "packed"), filled(1, "not_dispensed")], "packed"),
    "not dispensed goes before pending": (
        [filled(0, "not_dispensed"), cancel_asked(1, request_id="c1")],
        "not_dispensed",
    ),
    "pending goes before the transmission": (
        [sent(0, message_id="m1"), cancel_asked(1, request_id="c1")],
        "cancel_pending",
    ),
    "the transmission": ([sent(0, message_id="m1")], "sent"),
    "a fulfillment that is delivered is no shipment": (
        [worked_on(0, "delivered"), filled(1, "dispensed")],
        "dispensed",
    ),
}

SAFETY: dict[str, tuple[list[Event], list[str]]] = {
    "dispensed after the approval": (
        [cancel_answered(0, request_id="c1", decision="approved"), filled(1, "dispensed")],
        ["dispensed_after_cancel"],
    ),
    "partially dispensed after the approval": (
        [cancel_answered(0, request_id="c1", decision="approved"), filled(1, "partially_dispensed")],
        ["dispensed_after_cancel"],
    ),
    "dispensed before": ([filled(0, "dispensed"), cancel_answered(1, request_id="c1", decision="approved")], []),
    "the first approval counts": (
        [
            cancel_answered(0, request_id="c1", decision="approved"),
            filled(1, "dispensed"),
            cancel_answered(2, request_id="c1", decision="approved"),
            cancel_answered(3, request_id="c2", decision="approved"),
        ],
        ["dispensed_after_cancel"],
    ),
    "an approval that was taken back still came first": (
        [
            cancel_answered(0, request_id="c1", decision="approved"),
            filled(1, "dispensed"),
            cancel_answered(2, request_id="c1", decision="denied"),
        ],
        ["dispensed_after_cancel"],
    ),
    "only the newest fact of a fill counts": (
        [
            cancel_answered(0, request_id="c1", decision="approved"),
            filled(1, "dispensed"),
            filled(2, "not_dispensed"),
        ],
        [],
    ),
    "another fill before does not hide it": (
        [
            filled(0, "dispensed", 0),
            cancel_answered(1, request_id="c1", decision="approved"),
            filled(2, "dispensed", 1),
        ],
        ["dispensed_after_cancel"],
    ),
    "denied": ([cancel_answered(0, request_id="c1", decision="denied"), filled(1, "dispensed")], []),
    "not dispensed": ([cancel_answered(0, request_id="c1", decision="approved"), filled(1, "not_dispensed")], []),
}

TABLE = [
    pytest.param(events, column, expected, id=f"{column}: {case}")
    for column, cases in (
        ("dispense", DISPENSE),
        ("fulfillment", FULFILLMENT),
        ("shipment", SHIPMENT),
        ("open_requests", OPEN),
        ("display", DISPLAY),
        ("safety", SAFETY),
    )
    for case, (events, expected) in cases.items()
]


@pytest.mark.parametrize(("events", "column", "expected"), TABLE)
def test_the_facts_come_to_what_the_contract_says_in_every_order(
    events: list[Event], column: str, expected: object
) -> None:
    found = [getattr(state_of(*order), column) for order in permutations(events)]

    assert found == [expected] * len(found)
