"""The id of a delivery whose source signs none.

    signed id header                          that id
    id header that no signature covers        that id; if another body has it already, `<id>~<8 hex of the body's hash>`
    none                                      `dlv_` and 32 hex of the SHA-256 of the body
    none, and equal bytes may be another fact the same, `_` and the number of the time bucket of the receipt

An id that is not signed is no proof, so an equal id with another body is an ordinary new delivery, not a conflict.

A whole-record push repeats equal bytes when a prescription returns to a state: packed, approved, packed. A retry has
equal bytes too. The time bucket distinguishes them: an equal body in the same bucket, or in the one after that in which
it was first received, is a repeat; later it is a new fact. The id depends on body and time alone, so after a restart,
and at another replica, a retry has the same one. (A retry across the edge of a bucket, at a replica that has not read
the first yet, is a second event with an equal state.)

A prescription may also return to a state while an equal body would still be a repeat. So an equal body is a repeat only
while it is the newest of its key; after another body it is a new fact. Its id is that of its bucket, `~`, and 8 hex
digits of the SHA-256 of the id of the delivery in between. `NewestBodies` knows what this process has taken, what its
spool holds from before the start, and what the topics hold from earlier processes and other replicas. Where it knows
nothing of a key, an equal body is a new fact as well: a fact twice is the smaller evil than a fact that is lost.

Two gaps remain, in which the body in between is not seen and an equal body counts as a repeat. Another replica has
accepted it and this one has not read it yet: 50 to 300 ms, longer while that replica spools or nothing can be read.
With each source on one replica (docs/operations.md) only a replica that failed with a filled spool causes this. Or
Kafka has been away since the start, so its topic could not be read.

The whole body decides, never some of its fields: `Approved`, and `Approved` with a lot number, are two facts.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from bridge.event import Delivery, Event, Identity, ParkReason

# A day outlasts the retries of every sender we know of that has ids of its own.
DEDUPE_WINDOW_S = 86_400
PREFIX = "dlv_"
# 128 bits of the hash distinguish the deliveries of a source; 32 bits those with one id.
HASH_CHARS, SUFFIX_CHARS = 32, 8
# An equal body is a repeat in the bucket of the first one and in the next.
BUCKETS_OF_REPEATS = 2
# Some 40 MiB; with buckets of 600 s enough for 83 new keys a second. Beyond it the oldest goes.
KEYS_MAX = 100_000
# The id of a delivery that was identified by time, with the number of its bucket, in an event id that hangs on it.
_by_time = re.compile(rf"({PREFIX}[0-9a-f]{{{HASH_CHARS}}}_([0-9]{{1,12}})(?:~[0-9a-f]{{{SUFFIX_CHARS}}})?)(?:/.*)?")


def id_of_body(body_sha256: str, *, received_s: float, bucket_s: int) -> str:
    """Return the id of a delivery without one; `bucket_s` is 0 where equal bytes are always a repeat."""
    plain = PREFIX + body_sha256[:HASH_CHARS]
    return f"{plain}_{int(received_s // bucket_s)}" if bucket_s else plain


def id_of_other_body(webhook_id: str, body_sha256: str) -> str:
    """Return the id of a delivery whose unsigned id another body has."""
    return f"{webhook_id}~{body_sha256[:SUFFIX_CHARS]}"


def id_after(delivery_id: str, other_id: str) -> str:
    """Return a new id for a body seen before: `other_id` (same key, other body) came in between."""
    return f"{delivery_id}~{sha256(other_id.encode()).hexdigest()[:SUFFIX_CHARS]}"


def id_in_bucket_before(delivery_id: str) -> str:
    """Return what `id_of_body` gave for the same body one bucket earlier."""
    plain, _, bucket = delivery_id.rpartition("_")
    return f"{plain}_{int(bucket) - 1}"


def keys_by_delivery(delivery: Delivery, outcome: Iterable[Event] | ParkReason) -> list[str]:
    """Return the keys of the events whose ids are derived from the delivery's."""
    return [] if isinstance(outcome, ParkReason) else [event.key for event in outcome if _hangs_on(event, delivery)]


def identities_as(delivery: Delivery, outcome: Iterable[Event] | ParkReason, delivery_id: str) -> Iterator[Identity]:
    """Yield the identities that a delivery would have under another id; ids of the vendor's own stay."""
    if isinstance(outcome, ParkReason):
        yield Identity(delivery.source, delivery_id, delivery.body_sha256, outcome.reason)
        return
    for event in outcome:
        if _hangs_on(event, delivery):
            event_id = delivery_id + event.id[len(delivery.id) :]
            yield Identity(event.source, event_id, delivery.body_sha256)


def _hangs_on(event: Event, delivery: Delivery) -> bool:
    return event.id == delivery.id or event.id.startswith(f"{delivery.id}/")


class Newest(NamedTuple):
    """The newest delivery with a key."""

    id: str  # its id
    body_sha256: str  # hex digest of its body
    bucket: int  # number of the bucket of its first receipt
    received_s: float  # Unix seconds of that receipt
    until_s: float  # Unix seconds from which on no equal body is a repeat of it


class NewestBodies:
    """The newest delivery of each key, of sources where equal bytes without an id may be a new fact."""

    def __init__(self, buckets_s: Mapping[str, int], *, keys_max: int = KEYS_MAX, now: Callable[[], float]) -> None:
        """Know nothing yet; `buckets_s` has the seconds of a bucket by source, 0 where it has none."""
        self._buckets_s = {name: bucket_s for name, bucket_s in buckets_s.items() if bucket_s}
        self._keys_max = keys_max
        self._now = now
        self._newest: OrderedDict[tuple[str, str], Newest] = OrderedDict()

    def find(self, source: str, keys: Iterable[str]) -> list[Newest]:
        """Return what is known of some keys."""
        found = (self._newest.get((source, key)) for key in keys)
        return [each for each in found if each is not None]

    def note(self, delivery: Delivery, keys: Iterable[str]) -> None:
        """Note a delivery of this process as the newest of its keys, unless it repeats the one that is.

        It comes after all that is known, whatever the clocks say: ours may have been set back, or be behind that of
        another replica.
        """
        received_s = delivery.received_at.timestamp()
        bucket_s = self._buckets_s[delivery.source]
        bucket = int(received_s // bucket_s)
        newest = Newest(delivery.id, delivery.body_sha256, bucket, received_s, _until_s(bucket, bucket_s))
        for key in keys:
            place = (delivery.source, key)
            known = self._newest.get(place)
            # Later than what is known, so that this does not replace it when it is recalled once more.
            after_s = -math.inf if known is None else math.nextafter(known.received_s, math.inf)
            self._hold(place, newest._replace(received_s=max(received_s, after_s)))

    def recalled(self, identity: Identity, key: bytes, received_s: float) -> None:
        """Note what was found in a topic or in the spool, written there by any process."""
        bucket_s = self._buckets_s.get(identity.source)
        if bucket_s is None or identity.reason:
            return
        found = _by_time.fullmatch(identity.id)
        if found is None:
            return
        bucket = int(found[2])
        until_s = _until_s(bucket, bucket_s)
        if until_s > self._now():
            newest = Newest(found[1], identity.body_sha256, bucket, received_s, until_s)
            self._hold((identity.source, key.decode("utf-8", "replace")), newest)

    def _hold(self, place: tuple[str, str], newest: Newest) -> None:
        known = self._newest.get(place)
        if known is None or (known.id != newest.id and known.received_s <= newest.received_s):
            self._newest[place] = newest
            self._newest.move_to_end(place)
        now = self._now()
        while self._newest:
            place, oldest = next(iter(self._newest.items()))
            if oldest.until_s > now and len(self._newest) <= self._keys_max:
                return
            del self._newest[place]


def _until_s(bucket: int, bucket_s: int) -> float:
    return float((bucket + BUCKETS_OF_REPEATS) * bucket_s)
