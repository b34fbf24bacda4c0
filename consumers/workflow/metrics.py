"""The metrics of `workflow`, beside those of every consumer."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.runtime.metrics import NAMESPACE
from consumers.http import RequestMetrics
from consumers.lifecycle.safety import SAFETY_KINDS
from consumers.workflow.options import NAME

# Of the read model's views, and the signals of its facts.
KINDS = ("unconfirmed", "cancel_unanswered", "request_open", "source_silent", *SAFETY_KINDS)


class WorkflowMetrics:
    """Registers everything once.

    Attributes:
        requests: Counts calls of the server, not pings.
    """

    def __init__(
        self, registry: CollectorRegistry, *, service: str, timers: bool, now: Callable[[], float] = time.time
    ) -> None:
        """Register on the consumer's registry; `now` is Unix time, and `timers` whether they are enabled."""
        self._service = service
        self._now = now
        self.requests = RequestMetrics(
            registry,
            name=NAME,
            service=service,
            counted="Calls of the workflow server by outcome",
            timed="Time to the answer of the workflow server",
        )
        self._timers = Counter(
            f"{NAME}_timers",
            "Workflows started for what waits too long, and told that it does no more",
            ("service", "kind", "outcome"),
            namespace=NAMESPACE,
            registry=registry,
        )
        self._checked = Gauge(
            f"{NAME}_timers_checked_timestamp_seconds",
            "When this process last looked at what waits too long and told the workflow server all of it",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
        )
        if timers:
            for kind in KINDS:
                for outcome in ("started", "resolved"):
                    self._timers.labels(service, kind, outcome)
            self.checked()

    def timed(self, kind: str, outcome: str) -> None:
        """Count a timer's workflow that was `started`, or signalled that it is `resolved`."""
        self._timers.labels(self._service, kind, outcome).inc()

    def checked(self) -> None:
        """Note a complete run."""
        self._checked.labels(self._service).set(self._now())
