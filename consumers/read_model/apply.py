"""Apply a batch of events in the transaction that settles them: history first, then each prescription once."""

import collections
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.errors import TransientError
from bridge.event import Event
from bridge.runtime.metrics import NAMESPACE
from consumers.api import Placed
from consumers.lifecycle.facts import Document, blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.safety import ANOMALY_KINDS, SAFETY_KINDS, anomalies, safety_signals
from consumers.read_model.history import prescription_of, storable
from consumers.read_model.rows import row, statements
from consumers.read_model.summary import note_summary


class ReadModelMetrics:
    """Metrics of the read model; series with labels from closed lists exist from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        own: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self.safety_signals = Counter("safety_signals", "Safety signals raised", ("kind",), **own)
        contradictory = "Contradictory events without a safety risk"
        self.anomalies = Counter("read_model_anomalies", contradictory, ("kind",), **own)
        replaced = "Strings stored with U+FFFD instead of U+0000"
        self.nul_replaced = Counter("read_model_nul_replaced", replaced, **own)
        self.overdue = Gauge("read_model_overdue", "Waits that are longer than their timer", ("kind",), **own)
        silent = "1 while a source is silent for longer than is usual for it"
        self.source_silent = Gauge("read_model_source_silent", silent, ("source",), **own)
        checked = "When this process last checked the timers"
        self.timers_checked = Gauge("read_model_timers_checked_timestamp_seconds", checked, **own)
        for kind in SAFETY_KINDS:
            self.safety_signals.labels(kind=kind)
        for kind in ANOMALY_KINDS:
            self.anomalies.labels(kind=kind)


class _Known(NamedTuple):
    """A prescription as the transaction read it; `events` is None if it has no row yet."""

    document: Document
    events: int | None


class Applier:
    """The handler of the read model; one per process."""

    def __init__(self, *, schema: str, metrics: ReadModelMetrics, alarms_from: datetime | None) -> None:
        """Write to the tables of `schema`, a validated name; contradictions before `alarms_from` are not counted."""
        self._sql = statements(schema)
        self._metrics = metrics
        self._alarms_from = alarms_from

    async def __call__(self, batch: Sequence[Placed], connection: Any) -> None:
        """Apply any number of new events, of any number of prescriptions.

        Raises `TransientError` if another transaction wrote one of the rows, since a prescription's events are in
        several partitions or a former owner is still active. An immediate retry may succeed.
        """
        fresh, added = await self._write_history(batch, connection)
        known = await self._load({key for key, _ in fresh}, connection)
        before: dict[str, set[tuple[str, str]]] = {}
        # Newest first: the order does not matter, and the summary of older events is then skipped.
        for key, event in fresh if self._alarms_from is not None else reversed(fresh):
            document = known[key].document
            if key not in before and (self._alarms_from is None or event.received_at >= self._alarms_from):
                before[key] = _contradictions(document)
            apply(document, event, note=note_summary)
        await self._write_rows(known, added, connection)
        for key, stood in before.items():
            for kind, _ in _contradictions(known[key].document) - stood:
                counter = self._metrics.safety_signals if kind in SAFETY_KINDS else self._metrics.anomalies
                counter.labels(kind=kind).inc()

    async def _write_history(
        self, batch: Sequence[Placed], connection: Any
    ) -> tuple[list[tuple[str, Event]], Mapping[str, int]]:
        """Return the events of prescriptions as stored, and the number of new rows of each prescription."""
        fresh, rows, all_replaced = [], [], 0
        for given, context in batch:
            event, body, replaced = storable(given)
            all_replaced += replaced
            # By the original key, since its digest does not show the kind of key.
            key = None if prescription_of(given) is None else event.key
            if key is not None:
                fresh.append((key, event))
            place = context.topic, context.partition, context.offset
            times = event.occurred_at, event.received_at
            rows.append((event.source, event.id, key, event.type, *times, *place, body.decode()))
        self._metrics.nul_replaced.inc(all_replaced)
        new = await connection.fetch(self._sql.history, rows)
        return fresh, collections.Counter(each[0] for each in new)

    async def _load(self, keys: set[str], connection: Any) -> dict[str, _Known]:
        """Load the prescriptions in the order in which rows are written; `_write_rows` detects concurrent changes."""
        if not keys:
            return {}
        found = {
            key: _Known(orjson.loads(facts), events)
            for key, events, facts in await connection.fetch(self._sql.load, list(keys))
        }
        return {key: found.get(key) or _Known(blank(), None) for key in sorted(keys)}

    async def _write_rows(self, known: Mapping[str, _Known], added: Mapping[str, int], connection: Any) -> None:
        new: list[tuple[Any, ...]] = []
        old: list[tuple[Any, ...]] = []
        for key, (document, events) in known.items():
            rows = new if events is None else old
            rows.append(row(key, document, before=events, added=added.get(key, 0)))
        for statement, rows in ((self._sql.insert, new), (self._sql.update, old)):
            # A command tag, such as `INSERT 0 200`, ends with the number of rows.
            if rows and not (await connection.execute(statement, rows)).endswith(f" {len(rows)}"):
                raise TransientError("row_changed")


def _contradictions(document: Document) -> set[tuple[str, str]]:
    """Return the kind of each contradiction between the facts; an anomaly with its message."""
    signals = {(kind, "") for kind in safety_signals(document)}
    return signals | {(kind, message) for kind, messages in anomalies(document).items() for message in messages}
