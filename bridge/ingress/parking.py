"""Park a delivery from which no event can be made: byte for byte, in the topic of unrecognized deliveries."""

from collections.abc import Mapping

from bridge.event import Identity, ParkReason
from bridge.ingress.call import Call
from bridge.ingress.deduplicator import Deduplicator
from bridge.proof.scheme import Scheme

# Headers that every parked delivery keeps; none can carry a credential.
_SAFE = frozenset({b"content-type", b"content-length", b"user-agent"})
# Maximum length of each: nothing else bounds the length of joined repeated headers, and they must fit a record.
_SAFE_MAX = 512


async def park_delivery(call: Call, park: ParkReason, deduplicator: Deduplicator) -> bool:
    """Make a delivery durable, byte for byte; return whether it is new. May raise `NotDurableError`."""
    delivery = call.delivery._replace(headers=safe_headers(call.headers, call.sender.scheme))
    identity = Identity(delivery.source, delivery.id, delivery.body_sha256, park.reason)
    return await deduplicator.park(delivery, park, identity, deadline_at=call.deadline_at)


def safe_headers(headers: Mapping[bytes, bytes], scheme: Scheme) -> dict[str, str]:
    """Return the headers that a parked delivery keeps, truncated."""
    safe = _SAFE | scheme.safe
    return {name.decode(): value[:_SAFE_MAX].decode("latin-1") for name, value in headers.items() if name in safe}
