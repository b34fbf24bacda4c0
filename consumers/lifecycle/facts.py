"""The document of facts of a prescription, and how one fact replaces another.

Every rule keeps the greater or the lesser of two stamps, so the document does not depend on order, repetition or
grouping of the events.
"""

from typing import Any

from bridge.event import Event

Document = dict[str, Any]
"""JSON types only; equal facts serialise to equal bytes under sorted keys."""
Stamp = list[Any]
"""Place in the order of facts: `[time, sequence or 0, event id, source]`; the time is ISO 8601 with microseconds and
`Z`, which sorts as it reads. Ids are unique within a source only, hence its name at the end."""
Fact = list[Any]
"""`[stamp, word, ...]`."""

# Messages without an id count as one; an empty id is none.
NO_ID = ""


def blank() -> Document:
    """Return the document of a prescription without events."""
    return {"known": False, "messages": {}, "cancels": {}, "requests": {}, "fills": {}, "lines": {}, "shipments": {}}


def stamp_of(event: Event) -> Stamp:
    """Return the event's place in the order of facts."""
    moment = event.ordering_time.isoformat("T", "microseconds")[:26] + "Z"
    return [moment, event.value.get("sequence") or 0, event.id, event.source]


def newest(holder: Document, name: str, stamp: Stamp, *values: object) -> None:
    """Keep the fact with the greatest stamp."""
    known = holder.get(name)
    if known is None or stamp > known[0]:
        holder[name] = [stamp, *values]


def later(holder: Document, name: str, stamp: Stamp) -> None:
    """Keep the greatest stamp."""
    known = holder.get(name)
    if known is None or stamp > known:
        holder[name] = stamp


def earlier(holder: Document, name: str, stamp: Stamp) -> None:
    """Keep the least stamp."""
    known = holder.get(name)
    if known is None or stamp < known:
        holder[name] = stamp


def part(document: Document, name: str, identity: str) -> Document:
    """Return the facts of one message or request, created if missing."""
    parts: dict[str, Document] = document[name]
    known = parts.get(identity)
    if known is None:
        known = parts[identity] = {}
    return known
