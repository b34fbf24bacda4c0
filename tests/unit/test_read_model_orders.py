"""docs/contract.md §6 by sentences: the transmission of an order and its status, in every order of the facts."""

from __future__ import annotations

from itertools import permutations

import pytest

from bridge.event import Event
from tests.prescriptions import (
    a_fact,
    cancel_answered,
    cancel_asked,
    change_answered,
    created,
    failed,
    filled,
    processed,
    renewal_answered,
    renewal_closed,
    sent,
    shipped,
    state_of,
    worked_on,
)

TRANSMISSION: dict[str, tuple[list[Event], str]] = {
    "a draft is a draft": ([created(0)], "draft"),
    "nothing but a summary is a draft": ([a_fact("prescription.updated", 0, changed_fields=[])], "draft"),
    "a sent message is sent": ([created(0), sent(1, message_id="m1")], "sent"),
    "a failure belongs to the message it relates to": (
        [sent(0, message_id="m1"), failed(1, message_id="m2", relates_to_message_id="m1", retryable=True)],
        "failed",
    ),
    "a message with any confirmation is processed even if a failure is newer": (
        [
            sent(0, message_id="m1"),
            processed(1, relates_to_message_id="m1"),
            failed(2, relates_to_message_id="m1", retryable=True),
        ],
        "processed",
    ),
    "processed if any attempt is": (
        [processed(1, relates_to_message_id="m1"), sent(2, message_id="m3"), failed(3, relates_to_message_id="m3")],
        "processed",
    ),
    "else the newest attempt: sent again": (
        [sent(0, message_id="m1"), failed(1, relates_to_message_id="m1"), sent(2, message_id="m3")],
        "sent",
    ),
    "else the newest attempt: failed last": (
        [sent(0, message_id="m1"), sent(2, message_id="m3"), failed(3, relates_to_message_id="m1")],
        "failed",
    ),
    "a message never seen as sent exists as soon as an answer names it": (
        [failed(0, relates_to_message_id="m1"), filled(1, "dispensed")],
        "failed",
    ),
    "messages without an id count as one": (
        [sent(0, message_id=None), failed(1, relates_to_message_id=None)],
        "failed",
    ),
    "an answer by a message of its own without relation is no message of that id": (
        [sent(2, message_id="m1"), failed(1, message_id="m1")],
        "sent",
    ),
    "a fill implies processed where no message is known": ([created(0), filled(1, "not_dispensed")], "processed"),
    "a fulfillment implies processed where no message is known": ([worked_on(1, "received")], "processed"),
    "a shipment implies nothing": ([shipped(1, "in_transit")], "draft"),
    "news from a pharmacy implies nothing where a message is known": (
        [sent(0, message_id="m1"), filled(1, "dispensed"), worked_on(2, "packed")],
        "sent",
    ),
    "an unknown fill is no news": ([filled(1, "UNKNOWN")], "draft"),
    "a transient reject is no news": ([worked_on(1, "rejected", active=True)], "draft"),
}

ORDER: dict[str, tuple[list[Event], str]] = {
    "active": ([created(0)], "active"),
    "asked and not answered": ([cancel_asked(0, request_id="c1")], "cancel_pending"),
    "cancelled on an approved answer": (
        [cancel_asked(0, request_id="c1"), cancel_answered(1, request_id="c1", decision="approved")],
        "cancelled",
    ),
    "an answer before its question counts": ([cancel_answered(1, request_id="c1", decision="approved")], "cancelled"),
    "denied: active again": (
        [cancel_asked(0, request_id="c1"), cancel_answered(1, request_id="c1", decision="denied")],
        "active",
    ),
    "no response: active again": (
        [cancel_asked(0, request_id="c1"), cancel_answered(1, request_id="c1", decision="no_response")],
        "active",
    ),
    "a question newer than its answer stays answered": (
        [cancel_answered(0, request_id="c1", decision="denied"), cancel_asked(1, request_id="c1")],
        "active",
    ),
    "the newest answer stands: taken back": (
        [
            cancel_answered(0, request_id="c1", decision="approved"),
            cancel_answered(1, request_id="c1", decision="denied"),
        ],
        "active",
    ),
    "the newest answer stands: approved in the end": (
        [
            cancel_answered(0, request_id="c1", decision="denied"),
            cancel_answered(1, request_id="c1", decision="approved"),
        ],
        "cancelled",
    ),
    "any approved request cancels, whatever another was answered": (
        [
            cancel_answered(0, request_id="c1", decision="approved"),
            cancel_answered(1, request_id="c2", decision="denied"),
        ],
        "cancelled",
    ),
    "one answered and one open: pending": (
        [cancel_answered(0, request_id="c1", decision="denied"), cancel_asked(1, request_id="c2")],
        "cancel_pending",
    ),
    "an unknown answer is none": (
        [cancel_asked(0, request_id="c1"), cancel_answered(1, request_id="c1", decision="UNKNOWN")],
        "cancel_pending",
    ),
    "an unknown answer alone asks nothing": ([cancel_answered(1, request_id="c1", decision="UNKNOWN")], "active"),
    "replaced by a renewal": ([renewal_answered(0, request_id="r1", decision="replace")], "replaced"),
    "replaced by any answer with a replacement": (
        [change_answered(0, request_id="x1", decision="approved", replacement_prescription_id="rx_2")],
        "replaced",
    ),
    "a denied renewal with a replacement replaces too": (
        [renewal_answered(0, request_id="r1", decision="denied_new_rx_to_follow", replacement_prescription_id="rx_2")],
        "replaced",
    ),
    "approved without a replacement: active": ([renewal_answered(0, request_id="r1", decision="approved")], "active"),
    "an answer that was taken back replaces nothing": (
        [
            renewal_answered(0, request_id="r1", decision="replace"),
            renewal_answered(1, request_id="r1", decision="denied"),
        ],
        "active",
    ),
    "a closing takes no answer back": (
        [
            renewal_answered(0, request_id="r1", decision="replace"),
            renewal_closed(1, request_id="r1", reason="removed"),
        ],
        "replaced",
    ),
    "an unknown answer replaces nothing": (
        [renewal_answered(0, request_id="r1", decision="UNKNOWN", replacement_prescription_id="rx_2")],
        "active",
    ),
    "cancelled goes before replaced": (
        [
            renewal_answered(0, request_id="r1", decision="replace"),
            cancel_answered(1, request_id="c1", decision="approved"),
        ],
        "cancelled",
    ),
    "replaced goes before pending": (
        [renewal_answered(0, request_id="r1", decision="replace"), cancel_asked(1, request_id="c1")],
        "replaced",
    ),
    "pending goes before rejected": (
        [worked_on(0, "rejected", active=False), cancel_asked(1, request_id="c1")],
        "cancel_pending",
    ),
    "rejected if every line is dead": (
        [worked_on(0, "rejected", "q1", active=False), worked_on(1, "rejected", "q2", active=False)],
        "rejected",
    ),
    "one line alive: active": (
        [worked_on(0, "rejected", "q1", active=False), worked_on(1, "received", "q2")],
        "active",
    ),
    "a reject with active true is no fact": (
        [worked_on(0, "packed"), worked_on(1, "rejected", active=True)],
        "active",
    ),
    "a reject that does not say is no fact": ([worked_on(1, "rejected", active=None)], "active"),
    "a dead line that goes on is alive": (
        [worked_on(0, "rejected", active=False), worked_on(1, "received")],
        "active",
    ),
}

TABLE = [
    pytest.param(events, column, expected, id=f"{column}: {case}")
    for column, cases in (
        ("transmission", TRANSMISSION),
        ("order_status", ORDER),
    )
    for case, (events, expected) in cases.items()
]


@pytest.mark.parametrize(("events", "column", "expected"), TABLE)
def test_the_facts_come_to_what_the_contract_says_in_every_order(
    events: list[Event], column: str, expected: object
) -> None:
    found = [getattr(state_of(*order), column) for order in permutations(events)]

    assert found == [expected] * len(found)
