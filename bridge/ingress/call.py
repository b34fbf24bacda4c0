"""One request on its way through the stages of `webhooks.py`, and the source that its path names."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from bridge.errors import DeliveryRefusedError
from bridge.event import Delivery, Durable, Event, ParkReason
from bridge.ingress.challenges import Challenge
from bridge.ingress.delivery_limits import RateLimit
from bridge.mapping.profile import Mapped, Profile
from bridge.proof.scheme import Proof, Scheme, Secrets
from bridge.runtime.http_server import Request

UNKNOWN = "unknown"
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
    answer_200: bool = False  # spooled and parked deliveries get 200, not 202
    fast_path: FastPath | None = None  # short cut for plainly conforming deliveries, if the profile has one
    bucket_s: int = 0  # seconds for which equal bytes without an id count as a repeat; 0: always
    limit: RateLimit | None = None  # limit of deliveries, verified or not
    challenge: Challenge | None = None  # the vendor's registration handshake


class Observed:
    """Facts about one request, gathered for its log line and metrics."""

    __slots__ = ("began", "end_span", "event_id", "method", "routed", "source")

    def __init__(self, method: str, *, began: float = 0.0) -> None:
        """`began` is by `time.perf_counter`; default: now."""
        self.began = began or time.perf_counter()
        self.method = method
        self.routed = False
        self.source = UNKNOWN
        self.event_id = ""
        # Ends its span, if any; returns the trace id, and whether the trace is exported.
        self.end_span: Callable[..., tuple[str, bool]] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since its headers were read."""
        return time.perf_counter() - self.began


class Call(Observed):
    """One request on its way through the stages."""

    __slots__ = (
        "deadline_at",
        "delivery",
        "headers",
        "http",
        "outcome",
        "proof",
        "received_at",
        "received_s",
        "room",
        "sender",
        "taken",
        "unverified",
    )

    sender: Source  # the source named by its path
    proof: Proof  # result of the scheme, once verified
    delivery: Delivery  # set once verified
    outcome: Mapped | ParkReason  # set once mapped
    received_s: float  # Unix seconds of the complete receipt; requests processed together share one
    received_at: datetime  # the same, aware UTC
    taken: asyncio.Future[Durable]  # how its events become durable, once published

    def __init__(self, request: Request) -> None:
        super().__init__(request.method, began=request.began)
        self.http = request  # the server's request
        self.headers: Mapping[bytes, bytes] = {}  # the headers that sources need
        self.unverified: DeliveryRefusedError | None = None  # why it can only be a handshake, verified by a token
        self.room: int | None = None  # bytes that `Admission` counts for it; None while not admitted
        self.deadline_at = 0.0  # loop time by which it must have a response
