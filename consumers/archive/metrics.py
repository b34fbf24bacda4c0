"""The metrics of `archive`, beside those of every consumer."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.runtime.metrics import NAMESPACE


class ArchiveMetrics:
    """Registers everything once."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        """Register on the consumer's registry; `service` is the group."""

        def counter(name: str, text: str) -> Counter:
            return Counter(f"archive_{name}", text, ("service",), namespace=NAMESPACE, registry=registry)

        self._staged = counter("staged_files", "Files staged").labels(service)
        self._rows = counter("staged_rows", "Rows of the files staged").labels(service)
        self._bytes = counter("staged_bytes", "Bytes of the files staged").labels(service)
        self._published = counter("published_files", "Files published").labels(service)
        self._missing = counter("missing_files", "Committed files that were not found, at every look again").labels(
            service
        )
        self._current = Gauge(
            "archive_current_timestamp_seconds",
            "When this process last saw that readers see every committed file; until it looks, when it began",
            ("service",),
            namespace=NAMESPACE,
            registry=registry,
        ).labels(service)
        self._current.set_to_current_time()

    def staged(self, *, rows: int, size: int) -> None:
        """Count a file."""
        self._staged.inc()
        self._rows.inc(rows)
        self._bytes.inc(size)

    def published(self, count: int, *, missing: int, current: bool) -> None:
        """Note a run of the job; `current` if it left nothing."""
        self._published.inc(count)
        self._missing.inc(missing)
        if current:
            self._current.set_to_current_time()
