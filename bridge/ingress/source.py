"""A configured sender, as the pipeline of the public port needs it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bridge.event import Event
from bridge.ingress.challenges import Challenge
from bridge.ingress.rate_limit import RateLimit
from bridge.mapping.profile import Profile
from bridge.proof.scheme import Scheme, Secrets

# Body, webhook id and receipt -> the event that the reference would make, encoded; None where the reference decides.
FastPath = Callable[[bytes, str, datetime], Event | None]


@dataclass(frozen=True, slots=True)
class Source:
    """One configured sender."""

    name: str  # last segment of its path
    environment: str  # `production` or `sandbox`; events of the other one are parked
    profile: Profile  # its dialect
    scheme: Scheme  # how its deliveries prove their origin
    secrets: Secrets  # its key slots
    internal: bool = False  # the bridge's own heartbeat, whose clock is no sender's
    content_types: tuple[bytes, ...] = ()  # what its bodies may be called, with any parameters
    json: bool = True  # they may also be `application/json`
    answer_200: bool = False  # spooled and parked deliveries are answered 200, not 202
    fast_path: FastPath | None = None  # for deliveries that conform plainly, if the profile has one
    bucket_s: int = 0  # for how long equal bytes without an id may be a repeat; 0: always
    limit: RateLimit | None = None  # of deliveries, proved or not
    challenge: Challenge | None = None  # the handshake by which its vendor registers the endpoint
