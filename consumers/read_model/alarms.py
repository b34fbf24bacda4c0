"""Counts each contradiction between facts once, when it comes up."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client import Counter

from consumers.lifecycle.facts import Document, Stamp
from consumers.lifecycle.safety import anomalies, safety_signals
from consumers.read_model.metrics import ReadModelMetrics

# A batch that is rolled back comes again with contradictions already counted: enough for many batches of 200.
_COUNTED_MAX = 10_000

Occurrence = tuple[str, str, str]
"""Prescription, kind, and the event or message that identifies the occurrence."""


class Contradictions(NamedTuple):
    """The contradictions of a document, see `safety`."""

    signals: dict[str, Stamp]
    anomalies: dict[str, list[str]]


def contradictions(document: Document) -> Contradictions:
    """Return the contradictions between the facts."""
    return Contradictions(safety_signals(document), anomalies(document))


class Alarms:
    """Counters of contradictions; remembers recent ones."""

    def __init__(self, metrics: ReadModelMetrics) -> None:
        """Count there."""
        self._metrics = metrics
        self._counted: dict[Occurrence, None] = {}

    def note(self, key: str, before: Contradictions, after: Contradictions) -> None:
        """Count the contradictions that are new in `after`."""
        for kind, stamp in after.signals.items():
            if kind not in before.signals:
                self._count(self._metrics.safety_signals, (key, kind, stamp[2]))
        for kind, messages in after.anomalies.items():
            for message in messages:
                if message not in before.anomalies.get(kind, ()):
                    self._count(self._metrics.anomalies, (key, kind, message))

    def _count(self, counter: Counter, occurrence: Occurrence) -> None:
        if occurrence in self._counted:
            return
        counter.labels(kind=occurrence[1]).inc()
        self._counted[occurrence] = None
        if len(self._counted) > _COUNTED_MAX:
            del self._counted[next(iter(self._counted))]
