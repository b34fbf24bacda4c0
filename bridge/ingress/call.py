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

    sender: Source  # the source named by its path
    proof: Proof  # result of the scheme, once verified
    delivery: Delivery  # set once verified
    outcome: Mapped | ParkReason  # set once mapped
    received_s: float  # Unix seconds of the complete receipt; requests processed together share one
    received_at: datetime  # the same, aware UTC
    taken: asyncio.Future[Durable]  # how its events become durable, once published

    def __init__(self, request: http.Request) -> None:
        super().__init__(request.method, began=request.began)
        self.http = request  # the server's request
        self.heads: Mapping[bytes, bytes] = {}  # the headers that sources need
        self.unproved: DeliveryRefusedError | None = None  # why it can only be a handshake, proved by a token
        self.room: int | None = None  # bytes that `Admission` counts for it; None while not admitted
        self.ends_at = 0.0  # loop time by which it must be answered
