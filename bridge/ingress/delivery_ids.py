"""The id of a delivery whose source signs none.

    signed id header                          that id
    id header that no signature covers        that id; if another body has it already, `<id>~<8 hex of the body's hash>`
    none                                      `dlv_` and 32 hex of the SHA-256 of the body
    none, and equal bytes may be another fact the same, `_` and the number of the time bucket of the receipt

An id that is not signed is no proof, so an equal id with another body is an ordinary new delivery, not a conflict.

Whole-record pushes say the same again when a prescription returns to a state: packed, approved, packed. The first and
the third have equal bytes, and so has a retry. The bucket tells them apart by time: an equal body in the same bucket,
or in the one after that in which it was first received, is a repeat; later it is a new fact. The id depends on body
and time alone, so after a restart, and at another replica, a retry has the same one. (A retry across the edge of a
bucket, at a replica that has not read the first yet, is a second event with an equal state.)

The whole body decides, never some of its fields: `Approved`, and `Approved` with a lot number, are two facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bridge.event import AnyEvent, Delivery, Identity, ParkReason

PREFIX = "dlv_"
# 128 bits of the hash are all that tells two deliveries of a source apart; 32 bits tell those with one id.
HASH_CHARS, SUFFIX_CHARS = 32, 8
# An equal body is a repeat in the bucket of the first one and in the next.
BUCKETS_OF_REPEATS = 2


def id_of_body(body_sha256: str, *, received_s: float, bucket_s: int) -> str:
    """Return the id of a delivery without one; `bucket_s` is 0 where equal bytes are always a repeat."""
    plain = PREFIX + body_sha256[:HASH_CHARS]
    return f"{plain}_{int(received_s // bucket_s)}" if bucket_s else plain


def id_of_other_body(webhook_id: str, body_sha256: str) -> str:
    """Return the id of a delivery whose unsigned id another body has."""
    return f"{webhook_id}~{body_sha256[:SUFFIX_CHARS]}"


def id_in_bucket_before(delivery_id: str) -> str:
    """Return what `id_of_body` gave for the same body one bucket earlier."""
    plain, _, bucket = delivery_id.rpartition("_")
    return f"{plain}_{int(bucket) - 1}"


def identities_as(delivery: Delivery, outcome: Iterable[AnyEvent] | ParkReason, delivery_id: str) -> Iterator[Identity]:
    """Yield what the identities of a delivery would be if it had another id; ids of the vendor's own stay."""
    if isinstance(outcome, ParkReason):
        yield Identity(delivery.source, delivery_id, delivery.body_sha256, outcome.reason)
        return
    for event in outcome:
        if event.id == delivery.id or event.id.startswith(f"{delivery.id}/"):
            event_id = delivery_id + event.id[len(delivery.id) :]
            yield Identity(event.source, event_id, delivery.body_sha256)
