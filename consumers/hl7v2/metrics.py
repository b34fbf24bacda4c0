"""The metrics of `hl7v2`, beside those of every consumer."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from bridge.runtime.metrics import DURATION_BUCKETS, NAMESPACE
from consumers.hl7v2.options import NAME


class Held(NamedTuple):
    """Counts events without a known patient, by what became of them."""

    waiting: Counter
    refused: Counter


class Hl7Metrics:
    """Registers everything once.

    Attributes:
        held: Counts events that wait until it is known who the patient is, and those refused afterwards.
        dropped: Counts control characters left out of messages.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register on the consumer's registry."""
        self._service = service
        self._requests = Counter(
            f"{NAME}_requests",
            "Messages sent by outcome",
            ("service", "code"),
            namespace=NAMESPACE,
            registry=registry,
        )
        self._duration = Histogram(
            f"{NAME}_request_duration_seconds",
            "Time to the acknowledgement",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
            buckets=DURATION_BUCKETS,
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

    def observe(self, code: str, seconds: float) -> None:
        """Count one message that ended with `code` (`ok`, or that of what was raised)."""
        self._requests.labels(self._service, code).inc()
        self._duration.labels(self._service).observe(seconds)
