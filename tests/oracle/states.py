"""The state of each prescription that must come of the events that were sent.

Slow, plain, and written from docs/contract.md alone. It shares no code with the profiles, the codec and the read model,
which the fault tests judge by it, and keeps nothing between two calls: every fact is read, put in order and looked at
again. Each rule stands under the sentence of the contract (§6; of §3 what orders facts) that
it obeys.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

# What `expected_state` returns, and the column of `read_model.prescription` that holds it.
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

# A word outside its list is UNKNOWN, however the event spells it.
FILL_WORDS = ("dispensed", "partially_dispensed", "not_dispensed", "transferred")
LINE_WORDS = (
    *("received", "billing", "in_progress", "packed", "approved", "on_hold", "rejected"),
    *("handed_to_carrier", "delivered"),
)
PARCEL_WORDS = ("label_created", "picked_up", "in_transit", "out_for_delivery", "delivered", "exception", "returned")
RENEWAL_DECISIONS = ("approved", "approved_with_changes", "denied", "denied_new_rx_to_follow", "replace", "pending")
CHANGE_DECISIONS = ("approved", "approved_with_changes", "denied", "pending", "validated")
CLOSE_REASONS = ("expired", "removed", "superseded", "answered_elsewhere")
CANCEL_DECISIONS = ("approved", "denied", "no_response")

# The word by which an event of the type moves its machine.
MOVING_WORDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "renewal.responded": ("decision", RENEWAL_DECISIONS),
    "renewal.closed": ("reason", CLOSE_REASONS),
    "change.responded": ("decision", CHANGE_DECISIONS),
    "cancel.responded": ("decision", CANCEL_DECISIONS),
    "fill.status_changed": ("fill_status", FILL_WORDS),
    "fulfillment.status_changed": ("fulfillment_status", LINE_WORDS),
    "shipment.status_changed": ("shipment_status", PARCEL_WORDS),
}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AHEAD_MAX = timedelta(minutes=5)
MILLISECONDS_FROM = 10**11


class Fact(NamedTuple):
    """One event that counts; facts compare in the order of facts, for no two have the same place."""

    place: tuple[datetime, int, str]
    source: str
    type: str
    fields: Mapping[str, Any]


def expected_state(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
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
    ends = {"renewal.responded": "decision", "change.responded": "decision", "renewal.closed": "reason"}
    states = {}
    for name, news in _by(facts, "request_id", "renewal.requested", "change.requested", *ends).items():
        ended = of(news, *ends)
        states[name] = str(ended[-1].fields[ends[ended[-1].type]]) if ended else "open"
    return states


def open_requests(facts: Sequence[Fact]) -> list[str]:
    """List what waits for an answer: "request ids asked and not answered or closed, sorted"."""
    return sorted(name for name, state in requests(facts).items() if state == "open")


def fills(facts: Sequence[Fact]) -> dict[str | int, str]:
    """Give the state of each fill: "dispense, per fill: newest fact wins"."""
    return {name: news[-1].fields["fill_status"] for name, news in _fills(facts).items()}


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


def _fills(facts: Sequence[Fact]) -> dict[str | int, list[Fact]]:
    """Give the news of each fill: "per fill, by `fill_id` where it is given, else by number"."""

    def name_of(fact: Fact) -> str | int:
        return _text(fact.fields.get("fill_id")) or int(fact.fields["fill_number"])

    return grouped(of(facts, "fill.status_changed"), name_of)


def _by(facts: Sequence[Fact], field: str, *types: str) -> dict[str, list[Fact]]:
    return grouped(of(facts, *types), lambda fact: str(fact.fields[field]))


def _text(value: object) -> str | None:
    """Read an id that may be missing; an empty one is none."""
    return None if value is None or value == "" else str(value)


def facts_of(events: Iterable[Mapping[str, Any]]) -> list[Fact]:
    """Give the facts that count, oldest first.

    "Order of facts: (timestamp clamped as above, sequence or 0, id); of several records with one (source, event id)
    only the first counts."
    """
    first: dict[tuple[str, str], Fact] = {}
    for event in events:
        fact = _from_body(event) if "data" in event else _from_record(event)
        first.setdefault((fact.source, fact.place[2]), fact)
    return sorted(filter(_moves, first.values()), key=lambda fact: fact.place)


def of(facts: Iterable[Fact], *types: str) -> list[Fact]:
    return [fact for fact in facts if fact.type in types]


def grouped(facts: Iterable[Fact], name_of: Callable[[Fact], Any]) -> dict[Any, list[Fact]]:
    groups: dict[Any, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(name_of(fact), []).append(fact)
    return groups


def _moves(fact: Fact) -> bool:
    """Tell facts from news without effect.

    "UNKNOWN words go to history and change no machine." "`rejected` with `active` not false is no fact at all."
    """
    field, known = MOVING_WORDS.get(fact.type, ("", ()))
    if field and fact.fields[field] not in known:
        return False
    rejected = fact.type == "fulfillment.status_changed" and fact.fields["fulfillment_status"] == "rejected"
    return not rejected or fact.fields.get("active") is False


def _from_body(body: Mapping[str, Any]) -> Fact:
    place = (_instant(body["timestamp"]), int(body.get("sequence") or 0), str(body["id"]))
    return Fact(place, "", body["type"], body["data"])


def _from_record(value: Mapping[str, Any]) -> Fact:
    """Read a record: "a timestamp more than 5 min ahead of `received_at` is clamped to receipt + 5 min"."""
    moment = min(value["occurred_at"], value["received_at"] + AHEAD_MAX)
    return Fact((moment, value["sequence"] or 0, value["event_id"]), value["source"], value["event_type"], value)


def _instant(written: str | float) -> datetime:
    """Read a time: RFC 3339, without a zone in UTC; or "seconds below 1e11 and milliseconds from there"."""
    if isinstance(written, str):
        moment = datetime.fromisoformat(written)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    unit = timedelta(seconds=1) if written < MILLISECONDS_FROM else timedelta(milliseconds=1)
    return EPOCH + written * unit
