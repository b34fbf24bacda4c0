"""One request on its way through the stages of `webhooks.py`."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from bridge.errors import DeliveryRefusedError
from bridge.event import Delivery, Durable, ParkReason
from bridge.ingress.observations import Observed
from bridge.ingress.source import Source
from bridge.mapping.profile import Mapped
from bridge.proof.scheme import Proof
from bridge.runtime import http


class Call(Observed):
    """One request on its way through the stages."""

    __slots__ = (
        "delivery",
        "ends_at",
        "heads",
        "http",
        "outcome",
        "proof",
        "received_at",
        "received_s",
        "room",
        "sender",
        "taken",
        "unproved",
    )

    sender: Source  # the source that its path names
    proof: Proof  # what the scheme has proved, once it has
    delivery: Delivery  # once it was verified
    outcome: Mapped | ParkReason  # once it was mapped
    received_s: float  # Unix seconds when it was taken, whole; those that are taken together have one receipt
    received_at: datetime  # the same, aware UTC
    taken: asyncio.Future[Durable]  # how its events become durable, once they were published

    def __init__(self, request: http.Request) -> None:
        super().__init__(request.method, began=request.began)
        self.http = request  # the request as the server has it
        self.heads: Mapping[bytes, bytes] = {}  # the headers that are read
        self.unproved: DeliveryRefusedError | None = None  # why it may be a handshake only, which a token proves
        self.room: int | None = None  # bytes that `Admission` counts for it; None while it counts none
        self.ends_at = 0.0  # loop time by which it must have its answer
