"""A configured sender, with everything that the pipeline of the public port needs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bridge.event import Event
from bridge.ingress.challenges import Challenge
from bridge.ingress.rate_limit import RateLimit
from bridge.mapping.profile import Profile
from bridge.proof.scheme import Scheme, Secrets

# From body, webhook id and receipt to the encoded event; None to defer to the reference.
FastPath = Callable[[bytes, str, datetime], Event | None]


@dataclass(frozen=True, slots=True)
class Source:
    """One configured sender."""

    name: str  # last segment of its path
    environment: str  # `production` or `sandbox`; events of the other environment are parked
    profile: Profile  # maps its bodies to events
    scheme: Scheme  # verifies its deliveries
    secrets: Secrets  # its key slots
    internal: bool = False  # the bridge's own heartbeat, left out of clock offset metrics
    content_types: tuple[bytes, ...] = ()  # further content types of its bodies, with any parameters
    json: bool = True  # `application/json` is also accepted
    answer_200: bool = False  # spooled and parked deliveries are answered 200, not 202
    fast_path: FastPath | None = None  # short cut for plainly conforming deliveries, if the profile has one
    bucket_s: int = 0  # seconds for which equal bytes without an id count as a repeat; 0: always
    limit: RateLimit | None = None  # limit of deliveries, verified or not
    challenge: Challenge | None = None  # the vendor's registration handshake
