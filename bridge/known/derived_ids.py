"""Ids of deliveries whose source does not sign one.

    signed id header                          that id
    id header that no signature covers        that id; if another body has it already, `<id>~<8 hex of the body's hash>`
    none                                      `dlv_` and 32 hex of the SHA-256 of the body
    none, and equal bytes may be another fact the same, `_` and the Unix microseconds of the receipt

An unsigned id may be forged, so the same id with another body is a new delivery, not a conflict.

A sender that pushes whole records sends equal bytes again when a prescription returns to a state: packed, approved,
packed. A retry has equal bytes, too. So a body is a repeat only if it is the newest that this process has accepted for
each of its keys, less than the profile's `BUCKET_S` ago. Any other body is a new event with its own id. The whole body
is compared, never some fields: `Approved`, and `Approved` with a lot number, are two events.

`NewestBodies` is local to a process, and holds only deliveries by the sender itself. A parked delivery without a key
may be about any key, so it replaces everything known of its source. What an operator replays or pushes removes the
entries of its keys. So does a record that `KnownIdsReader` reads from a topic, if this process did not know its id:
another replica may have written it after the newest body. A record whose id is known is the process's own, or was read
before, and removes nothing. One that was given up at its deadline and appears later is unknown. So after a restart, or
at another replica, a retry becomes a second event with an equal state. A repeated event does less harm than a lost one.

One gap remains: another replica has accepted the body in between, and this one has not read it yet. Reading it takes 50
to 300 ms, longer while that replica spools or Kafka cannot be read. With each source on one replica
(docs/operations.md), only a replica that failed with a non-empty spool causes this.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

from bridge.event import Delivery

# Seconds; a day is longer than the retries of every known sender with ids.
DEDUPE_WINDOW_S = 86_400
PREFIX = "dlv_"
# Hex digits: 128 bits distinguish the deliveries of a source, 32 bits the deliveries with the same id.
HASH_CHARS, SUFFIX_CHARS = 32, 8
# Keys per source, some 40 MiB; beyond it the oldest is evicted.
KEYS_MAX = 100_000
# Placeholder for the unknown key of a parked delivery; keys of events are never empty.
_ANY_KEY = ""


def id_of_body(body_sha256: str, *, received_us: int | None = None) -> str:
    """Return the id of a delivery without one; `received_us` is given if equal bytes may be another event."""
    plain = PREFIX + body_sha256[:HASH_CHARS]
    return plain if received_us is None else f"{plain}_{received_us}"


def id_of_other_body(webhook_id: str, body_sha256: str) -> str:
    """Return the id of a delivery whose unsigned id already belongs to another body."""
    return f"{webhook_id}~{body_sha256[:SUFFIX_CHARS]}"


def is_derived(event_id: str, delivery_id: str) -> bool:
    """Return whether an event's id is derived from the id of its delivery instead of one in the body."""
    return event_id == delivery_id or event_id.startswith(f"{delivery_id}/")


class Newest(NamedTuple):
    """The newest delivery of a key."""

    id: str
    body_sha256: str  # hex digest of its body
    received_s: float  # Unix seconds of its first receipt


class NewestBodies:
    """The newest delivery of each key, for sources where equal bytes without an id may be a new event."""

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._newest: dict[str, OrderedDict[str, Newest]] = {}
        self._last_us = 0

    def new_id(self, body_sha256: str, received_s: float) -> str:
        """Return a unique id for a new event, also within one microsecond or after the clock was set back."""
        self._last_us = max(int(received_s * 1_000_000), self._last_us + 1)
        return id_of_body(body_sha256, received_us=self._last_us)

    def repeated(self, delivery: Delivery, keys: Collection[str], *, within_s: int) -> str:
        """Return the id of the delivery that this one repeats, or an empty string."""
        known = self._newest.get(delivery.source)
        if not known:
            return ""
        found = {known.get(key) for key in ([_ANY_KEY] if _ANY_KEY in known else keys)}
        newest = found.pop() if len(found) == 1 else None
        if newest is None or newest.body_sha256 != delivery.body_sha256:
            return ""
        return newest.id if abs(delivery.received_at.timestamp() - newest.received_s) < within_s else ""

    def note(self, delivery: Delivery, keys: Collection[str]) -> None:
        """Note a new delivery as the newest of its keys, or of the whole source if it is parked and has no key."""
        self.forget(delivery.source, keys)
        known = self._newest.setdefault(delivery.source, OrderedDict())
        newest = Newest(delivery.id, delivery.body_sha256, delivery.received_at.timestamp())
        for key in keys or [_ANY_KEY]:
            known[key] = newest
        while len(known) > self._keys_max:
            known.popitem(last=False)

    def forget(self, source: str, keys: Collection[str]) -> None:
        """Forget the newest of these keys, or of the whole source if there is none."""
        known = self._newest.get(source, OrderedDict())
        for key in [*keys, _ANY_KEY] if keys else list(known):
            known.pop(key, None)
