"""The facts that count of a prescription's history, in their order: docs/contract.md §6, and of §3 what orders them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tests.oracle import words

# The word by which an event of the type moves its machine.
MOVING_WORDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "renewal.responded": ("decision", words.RENEWAL_DECISIONS),
    "renewal.closed": ("reason", words.CLOSE_REASONS),
    "change.responded": ("decision", words.CHANGE_DECISIONS),
    "cancel.responded": ("decision", words.CANCEL_DECISIONS),
    "fill.status_changed": ("fill_status", words.FILL_WORDS),
    "fulfillment.status_changed": ("fulfillment_status", words.LINE_WORDS),
    "shipment.status_changed": ("shipment_status", words.PARCEL_WORDS),
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
    """Give the facts of some types, oldest first."""
    return [fact for fact in facts if fact.type in types]


def grouped(facts: Iterable[Fact], name_of: Callable[[Fact], Any]) -> dict[Any, list[Fact]]:
    """Put the facts about one thing together, oldest first."""
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
