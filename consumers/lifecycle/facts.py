"""The facts of a prescription as a document, and the rules by which one fact replaces another.

Every rule keeps the greater or the lesser of two stamps, so the document does not depend on order, repetition or
grouping of events.
"""

from typing import Any

from bridge.event import Event

Document = dict[str, Any]
"""JSON types only; equal facts serialise to equal bytes with sorted keys."""
Stamp = list[Any]
"""Position in the order of facts: `[time, sequence or 0, event id, source]`; ids are unique only within a source. The
time is ISO 8601 with microseconds and `Z`, which sorts chronologically.
"""
Fact = list[Any]
"""`[stamp, value, ...]`."""

# Messages without an id, or with an empty one, count as one message.
NO_ID = ""


def blank() -> Document:
    """Return the document of a prescription without events."""
    return {"known": False, "messages": {}, "cancels": {}, "requests": {}, "fills": {}, "lines": {}, "shipments": {}}


def stamp_of(event: Event) -> Stamp:
    """Return the event's position in the order of facts."""
    moment = event.ordering_time.isoformat("T", "microseconds")[:26] + "Z"
    return [moment, event.value.get("sequence") or 0, event.id, event.source]


def newest(holder: Document, name: str, stamp: Stamp, *values: object) -> None:
    """Keep the fact with the greatest stamp."""
    known = holder.get(name)
    if known is None or stamp > known[0]:
        holder[name] = [stamp, *values]


def later(holder: Document, name: str, stamp: Stamp) -> None:
    """Keep the greatest stamp."""
    holder[name] = max(holder.get(name, stamp), stamp)


def earlier(holder: Document, name: str, stamp: Stamp) -> None:
    """Keep the least stamp."""
    holder[name] = min(holder.get(name, stamp), stamp)


def part(document: Document, name: str, identity: str) -> Document:
    """Return the facts of one message or request, created if missing."""
    parts: dict[str, Document] = document[name]
    return parts.setdefault(identity, {})
