"""Roll up the facts of a prescription: one status per state machine, one to display, and open requests.

Source: docs/contract.md §6, "Roll-up" and "Display status".
"""

from typing import NamedTuple

from consumers.lifecycle.facts import Document, Fact, Stamp
from consumers.lifecycle.machines import DELIVERED, REJECTED
from consumers.lifecycle.safety import HANDED_OUT, anomalies, safety_signals

NONE = "none"
_NO_STAMP: Stamp = [None]
# In order of precedence, over all fills.
_DISPENSE = ("dispensed", "partially_dispensed", "transferred", "not_dispensed")
# Statuses that outrank all others for display, in this order of state machines.
_ORDER_SHOWN = frozenset({"cancelled", "replaced", "rejected"})
_DISPENSE_SHOWN = frozenset({"dispensed", "partially_dispensed", "transferred"})


class State(NamedTuple):
    """The state of a prescription; times are ISO 8601 with `Z`, or None."""

    transmission: str
    order_status: str
    dispense: str
    fulfillment: str
    shipment: str
    display: str
    open_requests: list[str]
    safety: list[str]  # kinds of current safety signals, sorted
    anomalies: int  # number of contradictions without a safety risk
    stub: bool  # neither draft nor sending of the order is known yet
    replaced_by: str | None  # the replacement's prescription id, if a response names one
    transmission_at: str | None  # when `transmission` was reached; None if no message is known
    cancel_pending_since: str | None  # the earliest cancel request without any response
    open_since: str | None  # the earliest open renewal or change request
    cancelled_at: str | None  # the first approved cancel response, even if a later response revoked it
    dispensed_at: str | None  # the newest fill that is dispensed, fully or partially


def roll_up(document: Document) -> State:
    """Return the state of a prescription."""
    fills: dict[str, Fact] = document["fills"]
    transmission, transmission_at = _transmission(document)
    order, replaced_by = _order(document)
    dispense = _dispense(fills)
    fulfillment = max(document["lines"].values())[1] if document["lines"] else NONE
    shipment = _shipment(document["shipments"])
    opened = _unanswered(document["requests"])
    approval = document.get("first_approval")
    return State(
        transmission=transmission,
        order_status=order,
        dispense=dispense,
        fulfillment=fulfillment,
        shipment=shipment,
        display=_display(transmission, order, dispense=dispense, fulfillment=fulfillment, shipment=shipment),
        open_requests=sorted(opened),
        safety=safety_signals(document),
        anomalies=sum(map(len, anomalies(document).values())),
        stub=not document["known"],
        replaced_by=replaced_by,
        transmission_at=transmission_at,
        cancel_pending_since=min(_unanswered(document["cancels"]).values(), default=_NO_STAMP)[0],
        open_since=min(opened.values(), default=_NO_STAMP)[0],
        cancelled_at=None if approval is None else approval[0],
        dispensed_at=max((stamp for stamp, word in fills.values() if word in HANDED_OUT), default=_NO_STAMP)[0],
    )


def _transmission(document: Document) -> tuple[str, str | None]:
    """Return status and time: a confirmation, else the newest attempt, else as implied by pharmacy events."""
    words: list[tuple[bool, Stamp, str]] = [
        (word == "processed", message[word], word)
        for message in document["messages"].values()
        for word in ("sent", "processed", "failed")
        if word in message
    ]
    if words:
        _, stamp, word = max(words)
        return word, stamp[0]
    return ("processed" if document["fills"] or document["lines"] else "draft"), None


def _order(document: Document) -> tuple[str, str | None]:
    """Return the order's status, and the id of its replacement if a response names one."""
    replacements = [
        request["answer"]
        for request in document["requests"].values()
        if "answer" in request and (request["answer"][1] == "replace" or request["answer"][2])
    ]
    replaced_by = (max(replacements)[2] or None) if replacements else None
    cancels = document["cancels"].values()
    if any("answer" in request and request["answer"][1] == "approved" for request in cancels):
        return "cancelled", replaced_by
    if replacements:
        return "replaced", replaced_by
    if any("answer" not in request for request in cancels):
        return "cancel_pending", None
    lines = document["lines"].values()
    return ("rejected" if lines and all(line[1] == REJECTED for line in lines) else "active"), None


def _dispense(fills: dict[str, Fact]) -> str:
    words = {fact[1] for fact in fills.values()}
    return next((word for word in _DISPENSE if word in words), NONE)


def _shipment(shipments: dict[str, Fact]) -> str:
    """Return the newest status, or `delivered` if any is: it is final."""
    words = ((word == DELIVERED, stamp, word) for stamp, word in shipments.values())
    return max(words, default=(False, [], NONE))[2]


def _unanswered(requests: Document) -> dict[str, Stamp]:
    """Return the requests neither answered nor closed; a response also counts if it is older than its request."""
    return {
        identity: request["asked"]
        for identity, request in requests.items()
        if "asked" in request and "answer" not in request and "closed" not in request
    }


def _display(transmission: str, order: str, *, dispense: str, fulfillment: str, shipment: str) -> str:  # noqa: PLR0911 -- by precedence
    if order in _ORDER_SHOWN:
        return order
    if shipment == DELIVERED:
        return shipment
    if dispense in _DISPENSE_SHOWN:
        return dispense
    if shipment != NONE:
        return shipment
    if fulfillment != NONE:
        return fulfillment
    if dispense != NONE:
        return dispense
    return order if order == "cancel_pending" else transmission
