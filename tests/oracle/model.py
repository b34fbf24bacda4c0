"""The state of one prescription, from its whole history: slow, plain, and written from docs/contract.md §6 alone.

It shares no code with the read model and keeps nothing between two calls: every fact is read, put in order and looked
at again. Each rule stands under the sentence of the contract that it obeys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.oracle.facts import Fact, facts_of, grouped, of

# What `expected` tells, and the column of `read_model.prescription` that holds it.
COLUMNS: Mapping[str, str] = {
    "transmission": "transmission",
    "order": "order_status",
    "dispense": "dispense",
    "fulfillment": "fulfillment",
    "shipment": "shipment",
    "display": "display",
    "open_requests": "open_requests",
    "safety": "safety",
    "anomalies": "anomalies",
}


def expected(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Work out every column of a prescription.

    Args:
        events: All there is of one prescription, in any order: bodies of deliveries as JSON gives them, or values of
            records as Avro gives them.
    """
    facts = facts_of(events)
    columns = {
        "transmission": transmission(facts),
        "order": order(facts),
        "dispense": dispense(facts),
        "fulfillment": fulfillment(facts),
        "shipment": shipment(facts),
        "open_requests": open_requests(facts),
        "safety": safety(facts),
        "anomalies": anomalies(facts),
    }
    return columns | {"display": display(columns)}


def messages(facts: Sequence[Fact]) -> dict[str | None, str]:
    """Give the state of each SCRIPT message.

    "`processed`/`failed` belong to the message in `relates_to_message_id`; a message with any confirmation is
    processed even if a failure is newer." "A message never seen as sent exists as soon as an answer names it."
    "Messages without an id count as one."
    """
    return {name: _message_state(news) for name, news in _by_message(facts).items()}


def transmission(facts: Sequence[Fact]) -> str:
    """Sum up the messages.

    "`processed` if any message is; else the state of the message with the newest fact (`sent`, `failed`); without any
    message: `processed` if a fill or fulfillment fact exists, else `draft`."
    """
    states = messages(facts)
    if "processed" in states.values():
        return "processed"
    if states:
        newest = max(_by_message(facts), key=lambda name: _by_message(facts)[name][-1].place)
        return states[newest]
    return "processed" if of(facts, "fill.status_changed", "fulfillment.status_changed") else "draft"


def cancels(facts: Sequence[Fact]) -> dict[str, str]:
    """Give each cancel request's newest answer, or `asked` if it has none."""
    states = {}
    for name, news in _by(facts, "request_id", "cancel.requested", "cancel.responded").items():
        answers = of(news, "cancel.responded")
        states[name] = answers[-1].fields["decision"] if answers else "asked"
    return states


def order(facts: Sequence[Fact]) -> str:
    """Say where the order stands.

    "First that applies: `cancelled` (any cancel request whose newest answer is approved), `replaced`,
    `cancel_pending` (a cancel request without any answer), `rejected` (there are pharmacy lines and all are
    rejected), `active`." "Replaced (renewal `replace`, or an answer with a replacement id)."
    """
    if "approved" in cancels(facts).values():
        return "cancelled"
    if any(_replaces(answer) for answer in _standing_answers(facts)):
        return "replaced"
    if "asked" in cancels(facts).values():
        return "cancel_pending"
    if set(lines(facts).values()) == {"rejected"}:
        return "rejected"
    return "active"


def requests(facts: Sequence[Fact]) -> dict[str, str]:
    """Give the state of each renewal and change request.

    "Open, answered(decision), closed(reason). An answer before its question is kept; the question then arrives
    answered." "An answer with the newest fact stands; every decision closes the question, `pending` included."
    """
    ends = {
        "renewal.responded": "decision",
        "change.responded": "decision",
        "renewal.closed": "reason",
    }
    states = {}
    for name, news in _by(facts, "request_id", "renewal.requested", "change.requested", *ends).items():
        ended = of(news, *ends)
        states[name] = str(ended[-1].fields[ends[ended[-1].type]]) if ended else "open"
    return states


def open_requests(facts: Sequence[Fact]) -> list[str]:
    """List what waits for an answer: "request ids asked and not answered or closed, sorted"."""
    return sorted(name for name, state in requests(facts).items() if state == "open")


def fills(facts: Sequence[Fact]) -> dict[int, str]:
    """Give the state of each fill: "dispense, per fill number: newest fact wins"."""
    return {number: news[-1].fields["fill_status"] for number, news in _fills(facts).items()}


def dispense(facts: Sequence[Fact]) -> str:
    """Sum up the fills.

    "Over all fills, first that applies: `dispensed`, `partially_dispensed`, `transferred`, `not_dispensed` (there are
    fills), `none`."
    """
    states = fills(facts).values()
    for word in ("dispensed", "partially_dispensed", "transferred", "not_dispensed"):
        if word in states:
            return word
    return "none"


def lines(facts: Sequence[Fact]) -> dict[str, str]:
    """Give the state of each pharmacy line: "fulfillment, per queue id: newest fact wins"."""
    found = _by(facts, "queue_id", "fulfillment.status_changed")
    return {name: news[-1].fields["fulfillment_status"] for name, news in found.items()}


def fulfillment(facts: Sequence[Fact]) -> str:
    """Sum up the lines: "the newest fact over all queue ids, else `none`"."""
    found = of(facts, "fulfillment.status_changed")
    return found[-1].fields["fulfillment_status"] if found else "none"


def parcels(facts: Sequence[Fact]) -> dict[str, str]:
    """Give the state of each parcel: "per tracking number: newest fact wins, but delivered is sticky"."""
    states = {}
    for name, news in _by(facts, "tracking_number", "shipment.status_changed").items():
        words = [fact.fields["shipment_status"] for fact in news]
        states[name] = "delivered" if "delivered" in words else words[-1]
    return states


def shipment(facts: Sequence[Fact]) -> str:
    """Sum up the parcels: "delivered if any is, else the newest fact over all tracking numbers, else `none`"."""
    if "delivered" in parcels(facts).values():
        return "delivered"
    found = of(facts, "shipment.status_changed")
    return found[-1].fields["shipment_status"] if found else "none"


def display(columns: Mapping[str, Any]) -> str:
    """Choose the one word to show.

    "First that applies: cancelled, replaced, rejected (order); delivered (shipment); dispensed / partially_dispensed /
    transferred (dispense); the shipment state; the fulfillment state; not_dispensed; cancel_pending; the transmission
    state."
    """
    choices = [
        (columns["order"], columns["order"] in {"cancelled", "replaced", "rejected"}),
        ("delivered", columns["shipment"] == "delivered"),
        (columns["dispense"], columns["dispense"] in {"dispensed", "partially_dispensed", "transferred"}),
        (columns["shipment"], columns["shipment"] != "none"),
        (columns["fulfillment"], columns["fulfillment"] != "none"),
        ("not_dispensed", columns["dispense"] == "not_dispensed"),
        ("cancel_pending", columns["order"] == "cancel_pending"),
        (columns["transmission"], True),
    ]
    return next(str(word) for word, applies in choices if applies)


def safety(facts: Sequence[Fact]) -> list[str]:
    """List the safety signals.

    "A fill (`dispensed` or `partially_dispensed`, newest) later than the first approved cancel answer raises the
    safety signal `dispensed_after_cancel`."
    """
    approved = [fact for fact in of(facts, "cancel.responded") if fact.fields["decision"] == "approved"]
    newest = [news[-1] for news in _fills(facts).values()]
    given = [fact for fact in newest if fact.fields["fill_status"] in {"dispensed", "partially_dispensed"}]
    if approved and any(fact.place > approved[0].place for fact in given):
        return ["dispensed_after_cancel"]
    return []


def anomalies(facts: Sequence[Fact]) -> int:
    """Count the messages with a contradiction: "processed after a final failure counts an anomaly"."""
    found = 0
    for news in _by_message(facts).values():
        final = [fact for fact in of(news, "prescription.transmission_failed") if fact.fields["retryable"] is False]
        confirmed = of(news, "prescription.processed")
        if final and confirmed and confirmed[-1].place > final[0].place:
            found += 1
    return found


def _message_state(news: Sequence[Fact]) -> str:
    if of(news, "prescription.processed"):
        return "processed"
    return "sent" if news[-1].type == "prescription.sent" else "failed"


def _replaces(answer: Fact) -> bool:
    return answer.fields["decision"] == "replace" or _text(answer.fields.get("replacement_prescription_id")) is not None


def _standing_answers(facts: Sequence[Fact]) -> list[Fact]:
    """Give the answer of each request: "an answer with the newest fact stands"."""
    return [news[-1] for news in _by(facts, "request_id", "renewal.responded", "change.responded").values()]


def _by_message(facts: Sequence[Fact]) -> dict[str | None, list[Fact]]:
    answers = ("prescription.processed", "prescription.transmission_failed")

    def message_of(fact: Fact) -> str | None:
        return _text(fact.fields.get("relates_to_message_id" if fact.type in answers else "message_id"))

    return grouped(of(facts, "prescription.sent", *answers), message_of)


def _fills(facts: Sequence[Fact]) -> dict[int, list[Fact]]:
    return grouped(of(facts, "fill.status_changed"), lambda fact: int(fact.fields["fill_number"]))


def _by(facts: Sequence[Fact], field: str, *types: str) -> dict[str, list[Fact]]:
    return grouped(of(facts, *types), lambda fact: str(fact.fields[field]))


def _text(value: object) -> str | None:
    """Read an id that may be missing; an empty one is none."""
    return None if value is None or value == "" else str(value)
