"""Map bodies outside of the ingress, for commands."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

from bridge.event import Delivery, ParkReason
from bridge.ingress.json_body import parse
from bridge.ingress.profiles.profile import Mapped, Profile
from bridge.known.delivery_ids import id_of_body

_ENVIRONMENTS = ("production", "sandbox")


def map_body(profile: Profile, body: bytes, *, source: str) -> Mapped | ParkReason:
    """Return what the ingress would make of a body of any environment, with the id in the body."""
    document = parse(body, arrays=getattr(profile, "ARRAYS", False))
    if isinstance(document, ParkReason):
        return document
    claimed = document if isinstance(document, dict) else {}
    event_id, environment, digest = claimed.get("id"), claimed.get("environment"), sha256(body).hexdigest()
    delivery = Delivery(
        source=source,
        environment=str(environment) if environment in _ENVIRONMENTS else _ENVIRONMENTS[0],
        id=event_id if isinstance(event_id, str) else id_of_body(digest, received_s=0, bucket_s=0),
        received_at=datetime.now(UTC),
        body=body,
        body_sha256=digest,
        key_slot="",
        traceparent="",
        headers={},
    )
    return profile.map(delivery, document)
