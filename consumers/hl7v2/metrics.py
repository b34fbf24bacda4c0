"""The metrics of `hl7v2`, beside those of every consumer."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from bridge.runtime.metrics import NAMESPACE
from consumers.hl7v2.options import NAME
from consumers.http import RequestMetrics


class Held(NamedTuple):
    """Counters of events without a known patient, by outcome."""

    waiting: Counter
    refused: Counter


class Hl7Metrics:
    """Registers everything once.

    Attributes:
        requests: Counts messages, not pings.
        held: Counts events held until the patient is known, and those refused afterwards.
        dropped: Counts control characters left out of messages.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register on the consumer's registry."""
        self.requests = RequestMetrics(
            registry,
            name=NAME,
            service=service,
            counted="Messages sent by outcome",
            timed="Time to the acknowledgement",
        )
        held = Counter(
            f"{NAME}_held",
            "Events that waited until their patient was known, and those of them that the receiver refused then",
            ("service", "outcome"),
            namespace=NAMESPACE,
            registry=registry,
        )
        self.held = Held(*(held.labels(service, outcome) for outcome in Held._fields))
        self.dropped = Counter(
            f"{NAME}_characters_dropped",
            "Control characters left out of messages",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
        ).labels(service)
