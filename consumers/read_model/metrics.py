"""The read model's own metrics, beside those of every consumer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.runtime.metrics import NAMESPACE
from consumers.lifecycle.safety import ANOMALY_KINDS, SAFETY_KINDS


class ReadModelMetrics:
    """Registers everything once; a series whose label is from a closed list is there from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register on the consumer's registry."""
        self.safety_signals = Counter(
            "safety_signals", "Safety signals raised", ("kind",), namespace=NAMESPACE, registry=registry
        )
        self.anomalies = Counter(
            "read_model_anomalies",
            "Contradictory events without a safety risk",
            ("kind",),
            namespace=NAMESPACE,
            registry=registry,
        )
        self.nul_replaced = Counter(
            "read_model_nul_replaced",
            "Strings stored with U+FFFD in the place of U+0000",
            namespace=NAMESPACE,
            registry=registry,
        )
        self.overdue = Gauge(
            "read_model_overdue",
            "What has waited longer than its timer",
            ("kind",),
            namespace=NAMESPACE,
            registry=registry,
        )
        self.source_silent = Gauge(
            "read_model_source_silent",
            "1 while a source is silent for longer than is usual for it",
            ("source",),
            namespace=NAMESPACE,
            registry=registry,
        )
        self.timers_checked = Gauge(
            "read_model_timers_checked_timestamp_seconds",
            "When this process last looked at the timers",
            namespace=NAMESPACE,
            registry=registry,
        )
        for kind in SAFETY_KINDS:
            self.safety_signals.labels(kind=kind)
        for kind in ANOMALY_KINDS:
            self.anomalies.labels(kind=kind)
