"""Map a body outside the ingress, for commands, with the same result as a running ingress."""

from datetime import datetime
from hashlib import sha256

from bridge.event import Delivery, ParkReason
from bridge.known.derived_ids import id_of_body
from bridge.mapping import drx_standard
from bridge.mapping.profile import Mapped, Profile, read_body
from bridge.proof.scheme import ID

# Environments that a source can be configured for and native DRx bodies name.
ENVIRONMENTS = ("production", "sandbox")


def is_native(profile: Profile) -> bool:
    """Return whether a profile is native DRx, whose bodies contain the id of the delivery."""
    return profile is drx_standard or isinstance(profile, drx_standard.NativeProfile)


def map_body(
    profile: Profile, body: bytes, *, source: str, received_at: datetime, environment: str = "", delivery_id: str = ""
) -> tuple[str, Mapped | ParkReason]:
    """Return the id of the delivery and the outcome of its body.

    Without `environment`, the body's is used; without `delivery_id`, that of a native body or else a hash of the body.
    """
    document, digest = read_body(profile, body), sha256(body).hexdigest()
    members = document if isinstance(document, dict) else {}
    found, claimed = members.get("id") if is_native(profile) else None, members.get("environment")
    own = found if isinstance(found, str) and ID.fullmatch(found.encode("utf-8", "surrogatepass")) else ""
    delivery = Delivery(
        source=source,
        environment=environment or (claimed if isinstance(claimed, str) and claimed in ENVIRONMENTS else "sandbox"),
        id=delivery_id or own or id_of_body(digest),
        received_at=received_at,
        body=body,
        body_sha256=digest,
        key_slot="",
        traceparent="",
        headers={},
    )
    if isinstance(document, ParkReason):
        return delivery.id, document
    try:
        return delivery.id, profile.map(delivery, document)
    except Exception:  # noqa: BLE001 - as the ingress parks a delivery on which a profile fails
        return delivery.id, ParkReason("unexpected")
