"""The metrics of `hl7v2`, beside those of every consumer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from bridge.runtime.metrics import NAMESPACE
from consumers.hl7v2.options import NAME
from consumers.http import RequestMetrics


class Hl7Metrics:
    """Registers everything once.

    Attributes:
        requests: Counts messages, not pings.
        waiting: Counts events held until the patient is known.
        refused: Counts held events that the receiver refused afterwards.
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
        self.waiting, self.refused = (held.labels(service, outcome) for outcome in ("waiting", "refused"))
        self.dropped = Counter(
            f"{NAME}_characters_dropped",
            "Control characters left out of messages",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
        ).labels(service)
