"""The metrics of `forward`, beside those of every consumer."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.runtime.metrics import NAMESPACE
from bridge.runtime.slots import Reload
from consumers.forward.options import NAME
from consumers.http import RequestMetrics


class ForwardMetrics:
    """Registers everything once.

    What its secrets do has the names that the ingress uses, with the service for a source: the same alerts hold.

    Attributes:
        service: Group of the consumer.
        requests: Counts attempts, not pings.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register on the consumer's registry."""
        self.service = service
        self.requests = RequestMetrics(registry, name=NAME, service=service)
        self._reload = Counter(
            "secret_reload",
            "Reloads of a secrets directory",
            ("source", "outcome"),
            namespace=NAMESPACE,
            registry=registry,
        )
        self._expiry = Gauge(
            "secret_expiry_timestamp_seconds",
            "When the last secret of a source expires",
            ("source",),
            namespace=NAMESPACE,
            registry=registry,
        )
        for outcome in ("reloaded", "failed"):
            self._reload.labels(service, outcome)

    def reloaded(self, outcome: Reload) -> None:
        """Count a reading of the secrets."""
        self._reload.labels(self.service, outcome).inc()

    def watch(self, expires_at: Callable[[], float]) -> None:
        """Ask `expires_at` at each scrape for the Unix seconds up to which the last secret signs."""
        self._expiry.labels(self.service).set_function(expires_at)
