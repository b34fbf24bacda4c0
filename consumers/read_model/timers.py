"""Counts what has waited too long, by the limits in the table `timer`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from consumers.read_model.metrics import ReadModelMetrics


class Timers:
    """A job: sets the metrics to what is overdue and silent now. The views compute both; it writes nothing."""

    def __init__(self, schema: str, *, metrics: ReadModelMetrics, now: Callable[[], float] = time.time) -> None:
        """Read the views of `schema`; `now` is the time of day in Unix seconds."""
        self._metrics = metrics
        self._now = now
        self._overdue = f'select kind, waiting from "{schema}".overdue_count'  # noqa: S608 -- a checked name
        self._silent = f'select source, silent from "{schema}".source_silence'  # noqa: S608 -- as above

    async def __call__(self, connection: Any) -> None:
        """Run once."""
        for kind, waiting in await connection.fetch(self._overdue):
            self._metrics.overdue.labels(kind=kind).set(waiting)
        silence = await connection.fetch(self._silent)
        self._metrics.source_silent.clear()
        for source, silent in silence:
            self._metrics.source_silent.labels(source=source).set(silent)
        self._metrics.timers_checked.set(self._now())
