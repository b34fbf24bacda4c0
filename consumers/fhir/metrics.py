"""The metrics of `fhir`, beside those of every consumer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from bridge.runtime.metrics import NAMESPACE
from consumers.fhir.options import NAME
from consumers.http import RequestMetrics


class FhirMetrics:
    """Registers everything once.

    Attributes:
        requests: Counts requests, not pings; `http_404` is the answer for what is written for the first time.
        conflicts: Counts writes that found another version than the last one of ours.
        deleted: Counts events of which something was left out because somebody deleted it, or what it refers to.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register on the consumer's registry."""
        self.requests = RequestMetrics(registry, name=NAME, service=service)
        self.conflicts = Counter(
            "fhir_conflicts",
            "Writes that met another version than the last one of ours",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
        ).labels(service)
        self.deleted = Counter(
            "fhir_deleted",
            "Events of which something was left out because it was deleted",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
        ).labels(service)
