"""The id of a delivery whose source signs none.

    signed id header                          that id
    id header that no signature covers        that id; if another body has it already, `<id>~<8 hex of the body's hash>`
    none                                      `dlv_` and 32 hex of the SHA-256 of the body
    none, and equal bytes may be another fact the same, `_` and the Unix milliseconds of the receipt

An id that is not signed is no proof, so an equal id with another body is an ordinary new delivery, not a conflict.

A whole-record push repeats equal bytes when a prescription returns to a state: packed, approved, packed. A retry has
equal bytes too. So a body repeats an earlier one only if it is the newest that this process has taken of each of its
keys, less than the profile's `BUCKET_S` ago. Anything else is a new fact with an id of its own. The whole body decides,
never some of its fields: `Approved`, and `Approved` with a lot number, are two facts.

`NewestBodies` is the memory of one process, of what the sender itself has delivered. What was parked may be of any key,
so it replaces all that is known of its source. A record in a topic, read by the follower, can only make it forget: a
replay or another replica may have written it after the newest body. So after a restart, or at another replica, a retry
is a second event with an equal state: a fact twice is the smaller evil than a fact that is lost.

One gap remains: another replica has accepted the body in between, and this one has not read it yet. That takes 50 to
300 ms, longer while that replica spools or nothing can be read. With each source on one replica (docs/operations.md)
only a replica that failed with a filled spool causes this.
"""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

from bridge.event import Delivery, Identity

# A day outlasts the retries of every sender we know of that has ids of its own.
DEDUPE_WINDOW_S = 86_400
PREFIX = "dlv_"
# 128 bits of the hash distinguish the deliveries of a source; 32 bits those with one id.
HASH_CHARS, SUFFIX_CHARS = 32, 8
# Of a source; some 40 MiB. Beyond it the oldest goes.
KEYS_MAX = 100_000
# Stands for the unknown key of what was parked; no key of an event is empty.
_ANY_KEY = ""


def id_of_body(body_sha256: str, *, received_ms: int | None = None) -> str:
    """Return the id of a delivery without one; `received_ms` is given where equal bytes may be another fact."""
    plain = PREFIX + body_sha256[:HASH_CHARS]
    return plain if received_ms is None else f"{plain}_{received_ms}"


def id_of_other_body(webhook_id: str, body_sha256: str) -> str:
    """Return the id of a delivery whose unsigned id another body has."""
    return f"{webhook_id}~{body_sha256[:SUFFIX_CHARS]}"


def is_derived(event_id: str, delivery_id: str) -> bool:
    """Return whether the id of an event was made of that of its delivery, and not of one in the body."""
    return event_id == delivery_id or event_id.startswith(f"{delivery_id}/")


class Newest(NamedTuple):
    """The newest delivery with a key."""

    id: str
    body_sha256: str  # hex digest of its body
    received_s: float  # Unix seconds of its first receipt


class NewestBodies:
    """The newest delivery of each key, of sources where equal bytes without an id may be a new fact."""

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._newest: dict[str, OrderedDict[str, Newest]] = {}
        self._last_ms = 0

    def new_id(self, body_sha256: str, received_s: float) -> str:
        """Return an id for a new fact; no two are equal, also within a millisecond and under a clock set back."""
        self._last_ms = max(int(received_s * 1000), self._last_ms + 1)
        return id_of_body(body_sha256, received_ms=self._last_ms)

    def repeated(self, delivery: Delivery, keys: Collection[str], *, within_s: int) -> str:
        """Return the id of the delivery that this one repeats, or an empty text."""
        known = self._newest.get(delivery.source)
        if not known:
            return ""
        found = {known.get(key) for key in ([_ANY_KEY] if _ANY_KEY in known else keys)}
        newest = found.pop() if len(found) == 1 else None
        if newest is None or newest.body_sha256 != delivery.body_sha256:
            return ""
        return newest.id if abs(delivery.received_at.timestamp() - newest.received_s) < within_s else ""

    def note(self, delivery: Delivery, keys: Collection[str]) -> None:
        """Note a new delivery as the newest of its keys, or of the whole source if it has none: it is to be parked."""
        known = self._newest.setdefault(delivery.source, OrderedDict())
        if keys:
            known.pop(_ANY_KEY, None)
        else:
            known.clear()
        newest = Newest(delivery.id, delivery.body_sha256, delivery.received_at.timestamp())
        for key in keys or [_ANY_KEY]:
            known[key] = newest
            known.move_to_end(key)
        while len(known) > self._keys_max:
            known.popitem(last=False)

    def written(self, identity: Identity, key: bytes = b"") -> None:
        """Forget what a record may be newer than, and all of its source if it was parked.

        The records of this process are read as well.
        """
        known = self._newest.get(identity.source)
        if known is None:
            return
        place = _ANY_KEY if identity.reason or _ANY_KEY in known else key.decode("utf-8", "replace")
        newest = known.get(place)
        if newest is not None and is_derived(identity.id, newest.id):
            return
        if identity.reason:
            known.clear()
        else:
            known.pop(place, None)
